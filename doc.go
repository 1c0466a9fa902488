// Package concord runs a member of a Concord cluster inside a Go program: a
// strongly consistent, durable, multi-version key-value store.
//
//	db, err := concord.Open(ctx, "data")
//	if err != nil {
//		return err
//	}
//	defer db.Close()
//	_, err = db.Put(ctx, "greeting", "hello")
//
// Without further options that is a whole store in one process: no ports, one
// directory. With [Peers], several processes form one store together, and each
// serves reads and writes.
//
// A [Node] implements [kv.Store] and [kv.Cluster]; package kv says what the
// calls promise. A disk that fails ends the member ([Node.Done], [Node.Err]),
// never the program around it.
package concord

// Version is the version of this module, as x.y.z.
const Version = "0.1.0"
