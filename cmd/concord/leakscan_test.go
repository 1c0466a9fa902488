package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// scanner looks for secrets, in the forms that programs write them in.
type scanner struct {
	forms []form
	seen  int // bytes that were looked through
}

type form struct {
	secret, kind string
	text         []byte
}

// add has a secret looked for.
func (s *scanner) add(name, secret string) {
	quoted, err := json.Marshal(secret)
	if err != nil {
		panic(err) // no string is without a form in JSON
	}
	goQuoted := strconv.Quote(secret)
	kinds := map[string]string{
		"as it is": secret, "in hexadecimal": hex.EncodeToString([]byte(secret)),
		"in HEXADECIMAL": strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"in JSON":        string(quoted[1 : len(quoted)-1]), "in Go": goQuoted[1 : len(goQuoted)-1],
		"in a URL": url.QueryEscape(secret), "in a path": url.PathEscape(secret),
		"as bytes in decimal": strings.Trim(fmt.Sprint([]byte(secret)), "[]"),
	}
	for kind, encoding := range map[string]*base64.Encoding{"in base64": base64.RawStdEncoding, "in base64 of URLs": base64.RawURLEncoding} {
		for before := range 3 { // bytes before it in the same group
			text := encoding.EncodeToString(append(make([]byte, before), secret...))
			// The first characters depend on what is before, the last on what follows.
			kinds[fmt.Sprintf("%s, shifted by %d", kind, before)] = text[(before*8+5)/6 : (before+len(secret))*8/6]
		}
	}
	for kind, text := range kinds {
		if len(text) < 8 {
			panic(fmt.Sprintf("%s %s is too short to be looked for", name, kind))
		}
		if !slices.ContainsFunc(s.forms, func(f form) bool { return f.secret == name && string(f.text) == text }) {
			s.forms = append(s.forms, form{name, kind, []byte(text)})
		}
	}
}

// addPEM has the key of a PEM file looked for: its lines, and the bytes in them.
func (s *scanner) addPEM(name, text string) {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "-----") {
			lines = append(lines, line)
		}
	}
	der, err := base64.StdEncoding.DecodeString(strings.Join(lines, ""))
	if err != nil || len(der) < 48 {
		panic(fmt.Sprintf("%s: no key in PEM: %v", name, err))
	}
	// PKCS #8 begins with what kind of key it is, and ends with an Ed25519 key or
	// has an ECDSA key before its middle; any 16 bytes of it are telling.
	s.add(name, string(der[len(der)-16:]))
	s.add(name+" (middle)", string(der[36:52]))
}

// find tells which secrets are in data, or in what was compressed there.
func (s *scanner) find(where string, data []byte) (leaks []string) {
	s.seen += len(data)
	data = bytes.TrimRight(data, "\x00") // of files that were made long in advance
	for _, f := range s.forms {
		if at := bytes.Index(data, f.text); at >= 0 {
			leaks = append(leaks, fmt.Sprintf("%s is in %s at byte %d, %s", f.secret, where, at, f.kind))
		}
	}
	if bytes.HasPrefix(data, []byte("\x1f\x8b")) {
		if r, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
			plain, _ := io.ReadAll(r) // what comes before damage counts too
			leaks = append(leaks, s.find(where+", unpacked,", plain)...)
		}
	}
	return leaks
}

// findIn looks through all files below dir, and at their names.
func (s *scanner) findIn(dir string) (leaks []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		leaks = append(leaks, s.find("the name of "+path, []byte(path))...)
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		leaks = append(leaks, s.find(path, data)...)
		return err
	})
	return leaks, err
}

// TestScannerFindsLeaks plants a secret in every form, in the midst of other
// things.
func TestScannerFindsLeaks(t *testing.T) {
	const secret = "tell \"nobody\"\nof /this+1?"
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	fmt.Fprintf(w, "some text and %s and more", secret)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	quoted, _ := json.Marshal(map[string]string{"password": secret})
	plants := map[string][]byte{
		"raw": []byte("x" + secret + "y"), "hexadecimal": []byte("0x" + hex.EncodeToString([]byte("z"+secret+"z"))), "HEXADECIMAL": fmt.Appendf(nil, "%X", secret),
		"json": quoted, "go": fmt.Appendf(nil, "%q", secret), "url": []byte("/?a=" + url.QueryEscape(secret)), "path": []byte("/" + url.PathEscape(secret)),
		"numbers": fmt.Append(nil, []byte("a"+secret)), "gzip": zipped.Bytes(), "before zeros": append([]byte(secret), make([]byte, 1<<20)...),
	}
	for before := range 5 {
		for after := range 4 {
			text := strings.Repeat("a", before) + secret + strings.Repeat("\xff", after)
			plants[fmt.Sprintf("base64 %d %d", before, after)] = []byte(base64.StdEncoding.EncodeToString([]byte(text)))
			plants[fmt.Sprintf("base64url %d %d", before, after)] = []byte(base64.RawURLEncoding.EncodeToString([]byte(text)))
		}
	}
	s := new(scanner)
	s.add("the secret", secret)
	s.add("another", "which is nowhere")
	dir := t.TempDir()
	for name, data := range plants {
		if leaks := s.find(name, data); len(leaks) == 0 || strings.Contains(leaks[0], "another") {
			t.Errorf("%s: %q in %.60q", name, leaks, data)
		}
		if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, " ", "-")), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	leaks, err := s.findIn(dir)
	for name := range plants {
		if !slices.ContainsFunc(leaks, func(l string) bool { return strings.Contains(l, "/"+strings.ReplaceAll(name, " ", "-")) }) {
			t.Errorf("not found in the file %s: %v", name, err)
		}
	}
	if leaks := s.find("nothing", []byte("tell nobody of this")); len(leaks) > 0 {
		t.Errorf("found %q where nothing is", leaks)
	}
}
