package kv

import "context"

// Upkeep is what a [Cluster] may offer besides: alarms, and the version that a
// cluster is being taken down to. Both are replicated, and reading them asks
// nobody.
type Upkeep interface {
	// Alarms lists the alarms raised, by type and member.
	Alarms() []Alarm
	// SetAlarm raises an alarm, or clears it. The result tells whether that
	// changed anything. An alarm of type AlarmAny is none and changes nothing.
	SetAlarm(ctx context.Context, a Alarm, raised bool) (changed bool, err error)
	// Downgrade is that version, x.y.z; empty when there is none.
	Downgrade() string
	// SetDowngrade sets it; empty ends the downgrade.
	SetDowngrade(ctx context.Context, version string) error
}
