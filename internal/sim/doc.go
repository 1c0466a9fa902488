// Package sim runs a whole cluster in one goroutine, driven by one seed: a
// virtual clock, network, disks and faults around the real replica core, log,
// snapshots and state machine. Only the goroutines of the replica's shell are
// replaced, by events of the simulator.
//
// A seed draws its own mix of settings and fault rates (swarm testing: Groce
// et al., "Swarm Testing", ISSTA 2012), runs a phase of faults and then a
// healed phase in which the cluster must make progress (safety, then liveness,
// as TigerBeetle's VOPR does). Invariants are checked at the event that breaks
// them. The same seed always gives the same events: [Result] carries a hash
// over all of them.
//
// To replay a failure:
//
//	go test ./internal/sim -run TestSeeds -sim.seed=N -sim.trace
package sim
