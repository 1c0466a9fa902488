package server

import "github.com/concord-kv/concord/kv"

// served tells the members what clients ask for here, in the kinds that say
// most; see [kv.Fronted].
func (s *Server) served() kv.ServedFigures {
	const service = "etcdserverpb.KV"
	return kv.ServedFigures{
		Connections: s.split.open.Load(), Under: s.metrics.Under(),
		Reads: s.metrics.Calls(service, "Range"), Writes: s.metrics.Calls(service, "Put", "DeleteRange", "Txn"),
	}
}
