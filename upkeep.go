package concord

import (
	"context"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
)

var _ kv.Upkeep = (*Node)(nil)

// Alarms implements [kv.Upkeep].
func (n *Node) Alarms() []kv.Alarm { return n.machine.Alarms() }

// SetAlarm implements [kv.Upkeep].
func (n *Node) SetAlarm(ctx context.Context, a kv.Alarm, raised bool) (changed bool, err error) {
	result, err := n.propose(ctx, func(dst []byte) []byte { return machine.EncodeAlarm(dst, a, raised) })
	if err != nil {
		return false, err
	}
	return alarmChanged(result)
}

// alarmChanged is the result of a command about an alarm.
func alarmChanged(result any) (changed bool, err error) {
	if c, ok := result.(*bool); ok {
		return *c, nil
	}
	return false, unexpected(result)
}

// Downgrade implements [kv.Upkeep].
func (n *Node) Downgrade() string { return n.machine.Downgrade() }

// SetDowngrade implements [kv.Upkeep].
func (n *Node) SetDowngrade(ctx context.Context, version string) error {
	_, err := n.headerCommand(ctx, func(dst []byte) []byte { return machine.EncodeDowngrade(dst, version) })
	return err
}
