package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/concord-kv/concord/kv"
)

// jsonKV is a key as JSON output shows it. Bytes that are no UTF-8 stand in the
// _base64 fields.
type jsonKV struct {
	Key            *string `json:"key,omitempty"`
	KeyBase64      string  `json:"key_base64,omitempty"`
	Value          *string `json:"value,omitempty"`
	ValueBase64    string  `json:"value_base64,omitempty"`
	CreateRevision int64   `json:"create_revision,omitempty"`
	ModRevision    int64   `json:"mod_revision,omitempty"`
	Version        int64   `json:"version,omitempty"`
	Lease          string  `json:"lease,omitempty"`
	// TTLMillis is what remains until the key expires by its own TTL.
	TTLMillis int64 `json:"ttl_ms,omitempty"`
}

func toJSONKV(k *kv.KeyValue, now kv.Time, values bool) jsonKV {
	out := jsonKV{
		CreateRevision: int64(k.CreateRevision), ModRevision: int64(k.ModRevision), Version: k.Version,
	}
	out.Key, out.KeyBase64 = jsonText(k.Key)
	if values {
		out.Value, out.ValueBase64 = jsonText(k.Value)
	}
	if k.Lease != 0 {
		out.Lease = k.Lease.String()
	}
	if k.Expires != 0 && now != 0 {
		out.TTLMillis = max(1, int64(k.Expires-now))
	}
	return out
}

func jsonText(b []byte) (text *string, encoded string) {
	if utf8.Valid(b) {
		s := string(b)
		return &s, ""
	}
	return nil, base64.StdEncoding.EncodeToString(b)
}

// printJSON writes v indented, on its own.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printJSONLine writes v in one line.
func printJSONLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printTable writes rows under a header, in columns.
func printTable(w io.Writer, header []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(header, "\t"))
	for _, row := range rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

// printable shows bytes to a person: as they are when they are plain text, else
// quoted; long ones are cut, and say so.
func printable(b []byte) string {
	const most = 80
	text, cut := string(b), ""
	if len(text) > most {
		text, cut = text[:most], fmt.Sprintf("… (%d bytes)", len(b))
		for len(text) > 0 && !utf8.ValidString(text) && len(text) > most-utf8.UTFMax {
			text = text[:len(text)-1]
		}
	}
	for _, r := range text {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return strconv.Quote(text) + cut
		}
	}
	return text + cut
}

// ttlLeft shows what remains until t.
func ttlLeft(t, now kv.Time) string {
	if t == 0 {
		return "-"
	}
	return max(0, t.Sub(now)).String()
}

func leaseText(id kv.LeaseID) string {
	if id == 0 {
		return "-"
	}
	return id.String()
}
