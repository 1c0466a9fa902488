package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/internal/restapi"
	"github.com/concord-kv/concord/kv"
)

const tokensPath = "/v1/auth/tokens"

func newTokenCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Make, list and revoke access tokens, which programs show instead of a user", Args: cobra.NoArgs,
		Long: "An access token is a secret (" + kv.TokenPrefix + "…) with rights of its own: roles, and keys\n" +
			"that it may read and write. It is shown once, when it is made; the cluster keeps\n" +
			"a hash of it. It is good on every member, for every API, until it is revoked or\n" +
			"its time is over.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenCreateCommand(g), newTokenListCommand(g), newTokenRevokeCommand(g))
	return cmd
}

// tokenFlags say what a new token may do.
type tokenFlags struct {
	name           string
	roles          []string
	prefixes, keys []string
	allow          string
	ttl            ttl
}

func newTokenCreateCommand(g *globals) *cobra.Command {
	var f tokenFlags
	cmd := &cobra.Command{
		Use: "create", Short: "Make an access token; its secret alone goes to standard output",
		Long: "Make an access token. Its secret alone goes to standard output, what it may do to\n" +
			"standard error. Roles are those of 'concord role', root for everything, and\n" +
			"concord:cluster, concord:auth, concord:backup and concord:telemetry for a part of\n" +
			"the administration, which give no right to keys.",
		Example: "  concord token create --name web --prefix app/ --allow read --ttl 720h > web.token\n" +
			"  concord token create --role concord:backup",
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", "name of the token, to revoke it by; no two have the same")
	flags.StringArrayVar(&f.roles, "role", nil, "role of the token; may be given several times")
	flags.StringArrayVar(&f.prefixes, "prefix", nil, "all keys that begin with this, with --allow; may be given several times")
	flags.StringArrayVar(&f.keys, "key", nil, "one key, with --allow; may be given several times")
	flags.StringVar(&f.allow, "allow", "", "what may be done with those keys: read, write or all")
	flags.Var(&f.ttl, "ttl", "how long the token is good, as in 30m or 720h; 0 means until it is revoked")
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		request, err := f.request()
		if err != nil {
			return err
		}
		return g.createToken(cmd.Context(), request)
	}
	return cmd
}

// request is what the flags ask for.
func (f *tokenFlags) request() (r restapi.NewToken, err error) {
	access := map[string]kv.Access{"read": kv.ReadAccess, "write": kv.WriteAccess, "all": kv.ReadWriteAccess, kv.ReadWriteAccess.String(): kv.ReadWriteAccess}
	allowed, known := access[f.allow]
	keyed := len(f.prefixes)+len(f.keys) > 0
	switch {
	case f.allow != "" && !known:
		return r, usagef("--allow %q is unknown; use read, write or all", f.allow)
	case f.allow != "" && !keyed:
		return r, usagef("--allow %s of which keys? Give --prefix or --key", f.allow)
	case keyed && f.allow == "":
		return r, usagef("--prefix and --key need --allow read, write or all")
	case !keyed && len(f.roles) == 0:
		return r, usagef("the token would be good for nothing; give --prefix or --key with --allow, or --role")
	}
	r = restapi.NewToken{Name: f.name, Roles: f.roles, TTLMillis: time.Duration(f.ttl).Milliseconds()}
	for _, prefix := range f.prefixes {
		key, end := []byte(prefix), kv.Prefix([]byte(prefix))
		if prefix == "" {
			key, end = []byte{0}, []byte{0} // all keys
		}
		r.Permissions = append(r.Permissions, restapi.Permission{Access: allowed.String(), Keys: restapi.KeysOf(key, end)})
	}
	for _, key := range f.keys {
		if key == "" {
			return r, usagef("--key is empty; --prefix '' means all keys")
		}
		r.Permissions = append(r.Permissions, restapi.Permission{Access: allowed.String(), Keys: restapi.KeysOf([]byte(key), nil)})
	}
	return r, nil
}

// createToken makes the secret here, and sends its hash alone.
func (g *globals) createToken(ctx context.Context, request restapi.NewToken) error {
	if err := g.checkOutput("value", "json"); err != nil {
		return err
	}
	secret := kv.NewSecretToken()
	id, err := kv.ParseSecretToken(secret)
	if err != nil {
		return fmt.Errorf("make a secret: %w", err)
	}
	request.SHA256 = fmt.Sprintf("%x", id[:])
	made, err := answerOf[restapi.MadeToken](ctx, g, http.MethodPost, tokensPath, request)
	if err != nil {
		return err
	}
	if g.output == "json" {
		made.Secret = secret
		return printJSON(g.std.out, made)
	}
	fmt.Fprintf(g.std.err, "token %s: %s; %s\n", calledToken(&made.Token), strings.Join(mayToken(&made.Token), ", "), endsToken(&made.Token))
	_, err = fmt.Fprintln(g.std.out, secret)
	return err
}

func calledToken(t *restapi.Token) string {
	if t.Name == "" {
		return t.ID
	}
	return t.Name + " (" + t.ID + ")"
}

// mayToken says in words what a token has.
func mayToken(t *restapi.Token) (all []string) {
	for _, role := range t.Roles {
		all = append(all, "role "+role)
	}
	for i := range t.Permissions {
		all = append(all, permissionText(&t.Permissions[i]))
	}
	return all
}

func permissionText(p *restapi.Permission) string {
	key, end, err := p.Bytes()
	if err != nil { // of a member that knows more than this program
		return p.Access + " ?"
	}
	return p.Access + " " + keysText(key, end)
}

func endsToken(t *restapi.Token) string {
	if t.LeftMillis == nil {
		return "good until it is revoked"
	}
	return "good for " + (time.Duration(*t.LeftMillis) * time.Millisecond).String()
}

func newTokenListCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Short: "List the access tokens, without their secrets", Args: cobra.NoArgs, Aliases: []string{"list"},
		Long: "List the access tokens. Who may not manage tokens sees the one that is shown. When\n" +
			"a token was used last is what the asked member knows, to the hour.",
	}
	g.addClientFlags(cmd.Flags())
	g.addOutputFlag(cmd.Flags(), "table", "table, json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := g.checkOutput("table", "json"); err != nil {
			return err
		}
		list, err := answerOf[restapi.Tokens](cmd.Context(), g, http.MethodGet, tokensPath, nil)
		if err != nil {
			return err
		}
		if g.output == "json" {
			return printJSON(g.std.out, list)
		}
		var rows [][]string
		for i := range list.Tokens {
			rows = append(rows, tokenRow(&list.Tokens[i]))
		}
		return printTable(g.std.out, []string{"ID", "NAME", "MAY", "AGE", "LEFT", "LAST USED"}, rows)
	}
	return cmd
}

func tokenRow(t *restapi.Token) []string {
	millis := func(ms int64) string { return (time.Duration(ms) * time.Millisecond).Round(time.Second).String() }
	left, used := "-", "-"
	if t.LeftMillis != nil {
		left = millis(*t.LeftMillis)
	}
	if at, err := time.Parse(time.RFC3339, t.LastUsed); err == nil {
		used = at.Local().Format("2006-01-02 15h")
	}
	name := "-"
	if t.Name != "" {
		name = printable([]byte(t.Name))
	}
	return []string{t.ID, name, strings.Join(mayToken(t), ", "), millis(t.AgeMillis), left, used}
}

func newTokenRevokeCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke TOKEN|ID|NAME", Short: "Revoke an access token, at once on every member",
		Long: "Revoke an access token, by its name, its id, or the secret itself, of which the hash\n" +
			"alone is sent. - reads one of them from standard input, which others cannot see as\n" +
			"they see a command line. Calls with the token are refused on every member from then\n" +
			"on, and its watches end.",
		Example: "  concord token revoke web\n  concord token revoke - < leaked.token",
		Args:    cobra.ExactArgs(1),
	}
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := g.checkOutput("value", "json"); err != nil {
			return err
		}
		which, _, err := g.nameToken(args[0])
		if err != nil {
			return err
		}
		gone, err := answerOf[restapi.RevokedToken](cmd.Context(), g, http.MethodDelete, tokensPath+"/"+url.PathEscape(which), nil)
		if err != nil {
			return err
		}
		if g.output == "json" {
			return printJSON(g.std.out, gone)
		}
		_, err = fmt.Fprintf(g.std.out, "token %s revoked\n", calledToken(&restapi.Token{ID: gone.ID, Name: gone.Name}))
		return err
	}
	return cmd
}

// nameToken is what an argument names, or - in standard input, as a member may
// see it: in place of a secret its hash.
func (g *globals) nameToken(arg string) (name string, secret bool, err error) {
	if arg == "-" {
		if arg, err = firstLine(g.std.in, "nothing comes from standard input"); err != nil {
			return "", false, err
		}
	}
	switch {
	case strings.HasPrefix(arg, kv.TokenPrefix):
		id, err := parseSecret(arg)
		return fmt.Sprintf("%x", id[:]), true, err
	case arg == "":
		return "", false, usagef("the name is empty; 'concord token ls' lists names and ids")
	}
	return arg, false, nil
}
