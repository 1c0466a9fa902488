//go:build !linux

package main

// coarsenTimers does nothing: timers have no slack here that can be set.
func coarsenTimers() {}
