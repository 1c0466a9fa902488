// Package processes starts clusters of etcd and of Concord as processes, by
// etcd's command lines, plain, with certificates and with those that servers
// make themselves. Members can be stopped, killed and started again. Everything
// ends with the test.
package processes
