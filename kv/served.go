package kv

// ServedFigures are what the server before a member has counted since it
// started, and how it is now.
type ServedFigures struct {
	// Connections are those of clients that are open, and Under the calls and
	// streams under way.
	Connections, Under int64
	// Reads are calls that read keys, Writes those that put, delete or run a
	// transaction; all other calls are in neither.
	Reads, Writes CallFigures
}

// CallFigures count calls that have ended: how long they took, and how many of
// them failed.
type CallFigures struct {
	Failed uint64
	Took   Durations
}

// Fronted is what a [Cluster] may offer besides: it tells the other members what
// the server before it counts.
type Fronted interface {
	// TellServed replaces the source of the figures. It may be called at any
	// time, and source from several goroutines at once.
	TellServed(source func() ServedFigures)
}
