package main

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/internal/restapi"
	"github.com/concord-kv/concord/kv"
)

func newCanCommand(g *globals) *cobra.Command {
	var flags keysFlags
	cmd := &cobra.Command{
		Use: "can TOKEN|USER read|write|readwrite KEY [END]", Short: "Ask whether somebody may read or write a key, or all keys from KEY up to END, and why",
		Long: "Ask whether a user or an access token may read or write keys, and by which rule. A\n" +
			"token is named by its name, its id, or the secret itself, of which the hash alone is\n" +
			"sent; - reads that from standard input. Where a user and a token have one name,\n" +
			"write user:NAME or token:NAME. Everybody may ask about themselves.\n\n" +
			"The exit code is 0 when it is allowed, and 6 when it is not.",
		Example: "  concord can alice read --prefix app/\n  concord can - write app/config < web.token",
		Args:    cobra.RangeArgs(3, 4),
	}
	flags.add(cmd)
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := g.checkOutput("value", "json"); err != nil {
			return err
		}
		key, end, err := flags.keys(args[2:])
		if err != nil {
			return err
		}
		if len(key) == 0 {
			return usagef("KEY is empty; --prefix '' means all keys")
		}
		who, secret, err := g.nameToken(args[0])
		if err != nil {
			return err
		}
		if secret {
			who = "token:" + who
		}
		access := args[1]
		if access == "all" {
			access = kv.ReadWriteAccess.String()
		}
		question := restapi.Ask{Who: who, Access: access, Keys: restapi.KeysOf(key, end)}
		verdict, err := answerOf[restapi.Verdict](cmd.Context(), g, http.MethodPost, "/v1/auth/can", question)
		if err != nil {
			return err
		}
		return g.printVerdict(&verdict)
	}
	return cmd
}

// printVerdict prints an answer, which is an exit code too.
func (g *globals) printVerdict(v *restapi.Verdict) (err error) {
	if g.output == "json" {
		err = printJSON(g.std.out, v)
	} else {
		_, err = fmt.Fprintln(g.std.out, verdictText(v))
	}
	if err == nil && !v.Allowed {
		err = &silentError{exitDenied}
	}
	return err
}

// verdictText is an answer in words.
func verdictText(v *restapi.Verdict) string {
	var rules []string
	for i := range v.Rules {
		from := "the token"
		if v.Rules[i].Role != "" {
			from = "role " + v.Rules[i].Role
		}
		rules = append(rules, from+": "+permissionText(&v.Rules[i].Permission))
	}
	switch {
	case v.Allowed && len(rules) > 0:
		return "allowed by " + strings.Join(rules, ", and ")
	case v.Allowed:
		return "allowed: " + v.Because
	case v.Missing != nil:
		return "denied: no rule to " + permissionText(v.Missing)
	}
	return "denied: " + v.Because
}
