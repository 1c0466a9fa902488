package restapi

import (
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// TestTimes sends durations of every cell there and back.
func TestTimes(t *testing.T) {
	var d kv.Durations
	for i := range d.Counts {
		d.Counts[i] = uint64(i % 3)
	}
	times := fromDurations(&d)
	if got := times.Durations(); got != d {
		t.Errorf("%v became %v", d, got)
	}
	if times.Count != d.Count() {
		t.Errorf("%d of %d", times.Count, d.Count())
	}
	strange := Times{Cells: []Cell{{UpTo: 0.0123, Count: 5}, {UpTo: -1, Count: 7}}}
	if got := strange.Durations(); got.Count() != 0 {
		t.Errorf("cells that do not exist: %v", got)
	}
	d = kv.Durations{}
	d.Counts[kv.DurationCell(2*time.Millisecond)] = 4
	if times := fromDurations(&d); len(times.Cells) != 1 || times.Cells[0].Count != 4 || times.Cells[0].UpTo < 0.002 || times.Cells[0].UpTo > 0.0022 {
		t.Errorf("%+v", times)
	}
}
