package kv

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
)

func TestSecretToken(t *testing.T) {
	seen := map[string]bool{}
	digits := map[byte]int{}
	const n = 2000
	for range n {
		secret := NewSecretToken()
		id, err := ParseSecretToken(secret)
		if err != nil || id != sha256.Sum256([]byte(secret)) {
			t.Fatalf("id %v, %v", id, err)
		}
		if seen[secret] || len(secret) != SecretLength || strings.Trim(secret[len(TokenPrefix):], secretDigits) != "" {
			t.Fatalf("%d characters, seen before: %v", len(secret), seen[secret])
		}
		seen[secret] = true
		for i := len(TokenPrefix); i < len(TokenPrefix)+secretRandom; i++ {
			digits[secret[i]]++
		}
	}
	// Each of the 62 is expected 1387 times, with a deviation of 37.
	for i := range len(secretDigits) {
		if got := digits[secretDigits[i]]; got < 1387-8*37 || got > 1387+8*37 {
			t.Errorf("%c was drawn %d times in %d secrets", secretDigits[i], got, n)
		}
	}
}

// Every way to damage a secret is told from one that is not known, and no error
// has a part of it.
func TestSecretTokenDamaged(t *testing.T) {
	secret := NewSecretToken()
	damaged := map[string]error{
		"":                         errSecretPrefix,
		"sk":                       errSecretPrefix,
		"root":                     errSecretPrefix,
		strings.ToUpper(secret):    errSecretPrefix,
		" " + secret:               errSecretPrefix,
		secret + "\n":              errSecretLength,
		secret[:SecretLength-1]:    errSecretLength,
		TokenPrefix:                errSecretLength,
		secret + secret:            errSecretLength,
		strings.Repeat("x", 1<<20): errSecretPrefix,
	}
	for i := len(TokenPrefix); i < SecretLength; i++ {
		changed := []byte(secret)
		changed[i] = secretDigits[(strings.IndexByte(secretDigits, changed[i])+1)%len(secretDigits)]
		damaged[string(changed)] = errSecretChecksum
		if i+1 < SecretLength && secret[i] != secret[i+1] {
			swapped := []byte(secret)
			swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
			damaged[string(swapped)] = errSecretChecksum
		}
	}
	for s, want := range damaged {
		id, err := ParseSecretToken(s)
		if err != want || id != (TokenID{}) || !errors.Is(err, ErrInvalidAuthToken) || CodeOf(err) != Unauthenticated {
			t.Errorf("%q: %v, %v, want %v", s, id, err, want)
		}
	}
}

func FuzzParseSecretToken(f *testing.F) {
	f.Add(NewSecretToken())
	f.Add(TokenPrefix + strings.Repeat("0", secretRandom+secretChecksum))
	f.Add(TokenPrefix)
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseSecretToken(s)
		if err == nil {
			if id != sha256.Sum256([]byte(s)) || len(s) != SecretLength {
				t.Fatalf("%q has id %v", s, id)
			}
			return
		}
		if id != (TokenID{}) || len(s) > 12 && strings.Contains(err.Error(), s) {
			t.Fatalf("%q: %v, %v", s, id, err)
		}
	})
}

func TestParseSecretTokenMakesNoGarbage(t *testing.T) {
	secret := NewSecretToken()
	wrong := secret[:SecretLength-1] + "!"
	if n := testing.AllocsPerRun(100, func() {
		if _, err := ParseSecretToken(secret); err != nil {
			t.Error(err)
		}
		if _, err := ParseSecretToken(wrong); err == nil {
			t.Error("a damaged secret is good")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParseSecretToken(b *testing.B) {
	secret := NewSecretToken()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseSecretToken(secret); err != nil {
			b.Fatal(err)
		}
	}
}

// The last to say who calls is right, and a token that was not looked up is no
// way in.
func TestWithTokenID(t *testing.T) {
	id := TokenID{1, 2, 3}
	ctx := WithTokenID(context.Background(), id)
	if c := CallerOf(ctx); c == nil || c.Token != NoTokenMark || c.User == "" {
		t.Errorf("caller %+v", c)
	}
	if got := TokenIDOf(ctx); got == nil || *got != id {
		t.Errorf("token %v", got)
	}
	for name, other := range map[string]context.Context{
		"none":    context.Background(),
		"a user":  WithCaller(ctx, Caller{User: "u"}),
		"own":     WithoutCaller(ctx),
		"another": WithCaller(context.Background(), Caller{Token: 1}),
	} {
		if got := TokenIDOf(other); got != nil {
			t.Errorf("%s: token %v", name, got)
		}
	}
	if got := TokenIDOf(WithTokenID(WithCaller(ctx, Caller{User: "u"}), TokenID{4})); got == nil || *got != (TokenID{4}) {
		t.Errorf("token %v", got)
	}
}

func TestTokenNames(t *testing.T) {
	id := TokenID{0xab, 0xcd}
	if id.String() != "abcd000000000000" || TokenUser(id, "") != "token:abcd000000000000" || TokenUser(id, "app") != "token:app" {
		t.Errorf("%v, %q, %q", id, TokenUser(id, ""), TokenUser(id, "app"))
	}
}
