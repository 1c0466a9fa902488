// Package kubeapi runs kube-apiserver on the servers of ENDPOINTS: three
// processes on one store, one of them without RangeStream, one without a watch
// cache. What they answer over HTTPS is held to what Kubernetes promises of
// objects, lists, watches, events and custom resources, also while members of the
// store are killed and started again, and what they say of the store in their
// logs and figures is held to nothing having gone wrong.
//
// It is a module of its own, with the versions that Kubernetes 1.37.2 is released
// with, and stands on the standard library beside them. The program comes in
// KUBE_APISERVER, three free addresses in ADDRESSES, the files of TLS in CA, CERT
// and KEY; make compat-kube-apiserver gives them.
package kubeapi
