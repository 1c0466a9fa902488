package kvtest_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func advance(s kv.Store, d time.Duration) { s.(*kvtest.Model).Advance(d) }

func TestModel(t *testing.T) {
	limits := kv.Limits{RequestBytes: 8 << 20}
	open := func(*testing.T) kv.Store { return kvtest.NewModel(limits) }
	kvtest.Run(t, open, kvtest.Options{Limits: limits, Advance: advance, Seeds: 40})
}
