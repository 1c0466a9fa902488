package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/internal/backup"
	"github.com/concord-kv/concord/kv"
)

func newClusterCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "See how a cluster is, and change its members", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newClusterStatusCommand(g), newClusterMembersCommand(g), newClusterDiscoverCommand(g), newClusterAddCommand(g),
		newClusterPromoteCommand(g), newClusterRemoveCommand(g), newClusterMoveLeaderCommand(g), newClusterLeaveCommand(g),
		newClusterAutopilotCommand(g), newRecoverCommand(g))
	return cmd
}

func newRecoverCommand(g *globals) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "recover [DIR]", Short: "Make a cluster of what one member has, when the others are lost",
		Long: "Make a cluster of one member of what is in a data directory, when a majority\n" +
			"of its cluster is lost for good, or when it is damaged and no other member\n" +
			"has the data. The member must not run.\n\n" +
			"Without --yes nothing is changed: the command says what is there, what would\n" +
			"be kept and what may be lost.\n\n" +
			"A sound directory stays where it is, with the ids of cluster and member, and\n" +
			"all other members are removed: they must never run again on their data, and\n" +
			"can only come back as new ones. Of a damaged one, the newest good snapshot\n" +
			"and the log up to the damage become a new cluster in its place, and the\n" +
			"directory is set aside as DIR.aside-1.\n\n" +
			"A damaged member of a cluster that lives needs none of this: start it with\n" +
			"'concord serve --rejoin'.",
		Example: "  concord cluster recover data\n  concord cluster recover data --yes",
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return g.onDirectory(cmd, func(dir string) error {
		done := g.busy("recover " + dir)
		r, err := recoverCluster(dir, yes)
		done()
		if err != nil {
			return err
		}
		if g.output == "json" {
			return printJSON(g.std.out, r.json(dir))
		}
		_, err = io.WriteString(g.std.out, r.text(dir))
		return err
	})
}

// recovery is what recoverCluster found or did.
type recovery struct {
	backup.Salvaged
	done        bool
	uncommitted uint64
}

// recoverCluster looks, and with yes does it in the way that fits.
func recoverCluster(dir string, yes bool) (r recovery, err error) {
	if r.Salvaged, err = backup.Survey(dir); err != nil || !yes {
		return r, err
	}
	r.done = true
	if len(r.Damage) > 0 {
		r.Salvaged, err = backup.Salvage(dir)
		return r, err
	}
	made, err := backup.Recover(dir)
	r.Status, r.uncommitted = made.Status, made.Uncommitted
	return r, err
}

func (r *recovery) json(dir string) map[string]any {
	damage, others := []string{}, []string{}
	for _, d := range r.Damage {
		damage = append(damage, d.Error())
	}
	for _, m := range r.Others {
		others = append(others, m.Name)
	}
	return map[string]any{
		"data_dir": dir, "done": r.done, "damage": damage, "removed_members": others, "set_aside": r.Aside,
		"member": kv.MemberID(r.Member.ID).String(), "cluster": kv.ClusterID(r.Member.Cluster).String(),
		"snapshot": r.Snapshot, "log_last": r.Last, "revision": int64(r.Status.Revision), "keys": r.Status.Keys,
	}
}

// text tells it to a person.
func (r *recovery) text(dir string) string {
	var b strings.Builder
	name := r.Member.Name
	if r.Member.ID != 0 {
		fmt.Fprintf(&b, "member     %v (%s) of cluster %v\n", kv.MemberID(r.Member.ID), name, kv.ClusterID(r.Member.Cluster))
	}
	for _, m := range r.Others {
		fmt.Fprintf(&b, "with       %v (%s) at %s\n", m.ID, m.Name, strings.Join(m.PeerAddrs, ", "))
	}
	for _, d := range r.Damage {
		fmt.Fprintf(&b, "damage     %v\n", d)
	}
	fmt.Fprintf(&b, "kept       snapshot %d, log to entry %d: %d keys at revision %d\n", r.Snapshot, r.Last, r.Status.Keys, int64(r.Status.Revision))
	switch {
	case len(r.Damage) > 0:
		b.WriteString("lost       what the damaged part held; acknowledged writes may be among it\n")
	case len(r.Others) > 0:
		b.WriteString("lost       what only the others have; acknowledged writes may be among it.\n" +
			"           Entries that no majority had may be kept, and count then\n")
	}
	switch {
	case !r.done && len(r.Damage) > 0 && len(r.Others) > 0:
		fmt.Fprintf(&b, "Nothing was changed. If another member lives, start this one with 'concord serve --rejoin' and its --peers: nothing is lost then.\nElse 'concord cluster recover %s --yes' makes a new cluster of what is kept, and sets the directory aside.\n", dir)
	case !r.done && len(r.Damage) > 0:
		fmt.Fprintf(&b, "Nothing was changed. A backup may hold more: 'concord backup verify FILE' tells its revision.\n'concord cluster recover %s --yes' makes a new cluster of what is kept, and sets the directory aside.\n", dir)
	case !r.done && len(r.Others) > 0:
		fmt.Fprintf(&b, "Nothing was changed. If a majority can still be started, start it: nothing is lost then.\nElse 'concord cluster recover %s --yes' removes the other members, which must never run again on their data.\n", dir)
	case !r.done:
		fmt.Fprintf(&b, "Nothing was changed, and nothing needs to be: start the member with 'concord serve --name %s --data-dir %s'.\n", name, dir)
	case r.Aside != "":
		fmt.Fprintf(&b, "%s is a new cluster %v; what was there is in %s. Start it with: concord serve --name %s --data-dir %s\n", dir, r.Plan.Cluster, r.Aside, r.Plan.Members[0].Name, dir)
	default:
		fmt.Fprintf(&b, "%s is a cluster of one member now. Start it with: concord serve --name %s --data-dir %s\n", dir, name, dir)
	}
	return b.String()
}
