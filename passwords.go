package concord

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"github.com/concord-kv/concord/kv"
)

// What a new hash costs: 19 MiB and two passes are what the OWASP Password
// Storage Cheat Sheet (2025) asks of argon2id at least. It takes some 30 ms of
// one processor.
const (
	argonMemory  = 19 << 10 // KiB
	argonPasses  = 2
	argonThreads = 1
	argonSalt    = 16
	argonKey     = 32
)

// What a hash that was given may ask for, so that a check cannot take the
// member's memory or time.
const (
	mostArgonMemory = 256 << 10 // KiB
	mostArgonPasses = 16
	mostBcryptCost  = 14
)

// hashParallel is how many hashes are computed at once.
func hashParallel() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// logins is what it takes to find out who calls.
type logins struct {
	// slots bounds the hashes that are computed at once.
	slots chan struct{}
	// under counts those, and the ones that wait for a slot.
	under atomic.Int64
	// renewing has the ids of tokens that a call is about to renew.
	renewing sync.Map
}

// mostWaiting is how many hashes wait: some half a minute of work of one
// processor, after which clients have given up.
const mostWaiting = 1000

// slowly runs f when few others run. It returns [kv.ErrOverloaded] when too many
// wait for that.
func (l *logins) slowly(ctx context.Context, f func()) error {
	defer l.under.Add(-1)
	if l.under.Add(1) > mostWaiting+int64(cap(l.slots)) {
		return kv.ErrOverloaded
	}
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.slots }()
	f()
	return nil
}

// hash makes the hash of a new password.
func (l *logins) hash(ctx context.Context, password string) (hash string, err error) {
	if len(password) > kv.MaxPassword {
		return "", kv.ErrPasswordTooLong
	}
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // never fails, by its documentation
	err = l.slowly(ctx, func() {
		key := argon2.IDKey([]byte(password), salt, argonPasses, argonMemory, argonThreads, argonKey)
		hash = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonPasses, argonThreads,
			base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
	})
	return hash, err
}

// check tells whether hash is that of password. An empty one is nobody's.
func (l *logins) check(ctx context.Context, hash, password string) (right bool, err error) {
	if len(password) > kv.MaxPassword {
		return false, nil
	}
	err = l.slowly(ctx, func() {
		if strings.HasPrefix(hash, "$2") {
			right = bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
			return
		}
		h, ok := parseArgon(hash)
		if !ok {
			// Nobody's: so that a refusal takes as long as that of a user.
			h = argonHash{memory: argonMemory, passes: argonPasses, threads: argonThreads, salt: make([]byte, argonSalt), key: make([]byte, argonKey)}
		}
		key := argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.threads, uint32(len(h.key)))
		right = subtle.ConstantTimeCompare(key, h.key) == 1 && ok
	})
	return right, err
}

// checkHash returns an error unless hash can be checked, at a bearable cost.
func checkHash(hash string) error {
	if cost, err := bcrypt.Cost([]byte(hash)); err == nil && cost <= mostBcryptCost {
		return nil
	}
	if _, ok := parseArgon(hash); ok {
		return nil
	}
	return kv.Errorf(kv.InvalidArgument, "the password hash cannot be used; give one of bcrypt up to cost %d, or of argon2id up to %d MiB and %d passes, in its text form",
		mostBcryptCost, mostArgonMemory>>10, mostArgonPasses)
}

// argonHash is a hash of argon2id (RFC 9106), taken apart.
type argonHash struct {
	memory, passes uint32
	threads        uint8
	salt, key      []byte
}

// parseArgon reads the text form of the PHC string format.
func parseArgon(hash string) (h argonHash, ok bool) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return h, false
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.passes, &h.threads); err != nil {
		return h, false
	}
	var err, keyErr error
	h.salt, err = base64.RawStdEncoding.DecodeString(parts[4])
	h.key, keyErr = base64.RawStdEncoding.DecodeString(parts[5])
	ok = err == nil && keyErr == nil && len(h.salt) >= 8 && len(h.key) >= 16 && h.threads > 0 &&
		h.passes > 0 && h.passes <= mostArgonPasses && h.memory <= mostArgonMemory
	return h, ok
}
