//go:build !race

package concord

// underRace says that the race detector makes everything tens of times slower.
const underRace = false
