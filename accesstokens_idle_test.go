package concord_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/concordtest"
	"github.com/concord-kv/concord/kv"
)

// An idle member writes an entry an hour for a token of a year, and one at its
// time for a token that ends, which ends its watches.
func TestIdleWithAccessTokens(t *testing.T) { synctest.Test(t, testIdleWithAccessTokens) }

func testIdleWithAccessTokens(t *testing.T) {
	c := concordtest.Start(t, 1, concord.Timing(time.Second, 10*time.Second)) // a minute of ticks is dear enough
	n := c.Node(c.Leader())
	make := func(ttl time.Duration) string {
		secret := kv.NewSecretToken()
		id, err := kv.ParseSecretToken(secret)
		if err != nil {
			t.Fatal(err)
		}
		token := kv.NewAccessToken{ID: id, TTL: ttl, Permissions: []kv.Permission{{Key: []byte("k")}}}
		if ttl == 0 {
			token.Roles = []string{kv.RootName}
		}
		if _, _, err := n.CreateToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		return secret
	}
	make(0)
	if _, err := n.EnableAuth(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries := func(during time.Duration) int {
		before := n.Status().Applied
		<-time.After(during) // in the bubble
		return int(n.Status().Applied - before)
	}
	idle := entries(3 * time.Hour)
	make(365 * 24 * time.Hour)
	if got := entries(3*time.Hour + time.Minute); got-idle < 2 || got-idle > 4 {
		t.Errorf("%d entries in three hours with a token of a year, %d without", got, idle)
	}
	began := time.Now()
	watch := n.Watch(concord.WithToken(t.Context(), make(90*time.Minute)), kv.WatchRequest{Key: []byte("k")})
	for _, err := range watch {
		if err == nil {
			continue
		}
		if late := time.Since(began) - 90*time.Minute; kv.CodeOf(err) != kv.Unauthenticated || late < 0 || late > time.Second {
			t.Errorf("the watch ended %v late: %v", late, err)
		}
	}
}
