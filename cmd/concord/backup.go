package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/internal/backup"
	"github.com/concord-kv/concord/kv"
)

func newBackupCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup", Short: "Create, verify and restore backups", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBackupCreateCommand(g), newBackupVerifyCommand(g), newBackupRestoreCommand(g))
	return cmd
}

func newBackupCreateCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "create FILE", Short: "Write a backup of a running member; - writes to standard output",
		Long: "Write a backup of a running member, with all that was acknowledged before.\n" +
			"Reads and writes go on. FILE must not exist; it gets its name when it is\n" +
			"complete and was verified.",
		Example: "  concord backup create monday.backup", Args: cobra.ExactArgs(1),
	}
	g.addClientFlags(cmd.Flags())
	cmd.Flags().Lookup("timeout").Hidden = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return runBackupCreate(cmd.Context(), g, args[0])
	}
	return cmd
}

func runBackupCreate(ctx context.Context, g *globals, file string) error {
	c, err := g.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	bar := newProgress(g.std.err, -1, "backup")
	defer bar.Close()
	write := func(w io.Writer) error { return c.Backup(ctx, io.MultiWriter(w, bar)) }
	if file == "-" {
		return write(g.std.out)
	}
	started := time.Now()
	meta, err := backup.Save(file, write)
	if err != nil {
		return fmt.Errorf("create backup: %w", err)
	}
	fmt.Fprintf(g.std.err, "backup %s: %d bytes of state at log index %d, verified, in %v\n",
		file, meta.Size, meta.Index, time.Since(started).Round(time.Millisecond))
	return nil
}

func newBackupVerifyCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Find any damaged bit of a backup", Args: cobra.ExactArgs(1),
		Example: "  concord backup verify monday.backup",
	}
	g.addOutputFlag(cmd.Flags(), "value", "value, json")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if err := g.checkOutput("value", "json"); err != nil {
			return err
		}
		meta, err := backup.VerifyFile(args[0])
		if errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err != nil {
			return &hintedError{fmt.Errorf("%s: %w", args[0], err), "This file must not be restored; take another backup."}
		}
		if g.output == "json" {
			return printJSON(g.std.out, map[string]any{
				"file": args[0], "cluster": kv.ClusterID(meta.Cluster).String(),
				"index": meta.Index, "term": meta.Term, "state_bytes": meta.Size,
			})
		}
		_, err = fmt.Fprintf(g.std.out, "%s is sound: cluster %v at log index %d, %d bytes of state\n",
			args[0], kv.ClusterID(meta.Cluster), meta.Index, meta.Size)
		return err
	}
	return cmd
}

// restoreOptions say what cluster a backup becomes.
type restoreOptions struct {
	dataDir, name string
	peers         []string
}

func newBackupRestoreCommand(g *globals) *cobra.Command {
	var opts restoreOptions
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Make the data directory of a new cluster from a backup",
		Long: "Make the data directory of a new cluster from a backup. Keys, history,\n" +
			"leases and settings are the backup's; revisions go on from there. The cluster\n" +
			"has a new id, so that members and watches of the old one are not mixed in.\n\n" +
			"The cluster starts with this one member. Start it with 'concord serve', then\n" +
			"start the others on empty directories with the same --peers: they join.",
		Example: "  concord backup restore monday.backup --data-dir data\n  concord serve --data-dir data",
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&opts.dataDir, "data-dir", "", "directory to make; it must not exist or be empty")
	cmd.Flags().StringVar(&opts.name, "name", "n1", "the member's name")
	cmd.Flags().StringSliceVar(&opts.peers, "peers", nil, "this member's NAME=HOST:PORT for other members")
	cmd.RunE = func(_ *cobra.Command, args []string) error { return runBackupRestore(g, opts, args[0]) }
	return cmd
}

func runBackupRestore(g *globals, opts restoreOptions, file string) error {
	if opts.dataDir == "" {
		return usagef("--data-dir is missing; name the directory to make")
	}
	peers, err := parsePeers(opts.peers)
	if err != nil {
		return err
	}
	self := kv.Member{Name: opts.name}
	if addr := peers[opts.name]; addr != "" {
		self.PeerAddrs = []string{addr}
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer f.Close()
	size := int64(-1)
	if info, err := f.Stat(); err == nil {
		size = info.Size()
	}
	bar := newProgress(g.std.err, size, "restore")
	defer bar.Close()
	dir, err := filepath.Abs(opts.dataDir)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	made, err := backup.Restore(dir, io.TeeReader(f, bar), backup.Plan{Members: []kv.Member{self}})
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	fmt.Fprintf(g.std.err, "%s holds cluster %v of one member, %d keys at revision %d; start it with: concord serve --name %s --data-dir %s\n",
		opts.dataDir, made.Cluster, made.Status.Keys, made.Status.Revision, opts.name, opts.dataDir)
	return nil
}

func newCheckCommand(g *globals) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "check [DIR]", Short: "Verify the data directory of a member that is not running",
		Long: "Verify the data directory of a member that is not running: identity, log,\n" +
			"snapshots and the state that they make. Nothing is changed. Damage is named\n" +
			"by file and byte, with what to do, and ends with exit code 1.",
		Example: "  concord check data", Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().StringVar(&dir, "data-dir", "", "the directory, instead of DIR")
	g.addOutputFlag(cmd.Flags(), "value", "value, json")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 1 {
			dir = args[0]
		}
		if dir == "" {
			return usagef("no data directory is given")
		}
		if err := g.checkOutput("value", "json"); err != nil {
			return err
		}
		report, err := backup.Check(dir)
		if perr := g.printCheck(dir, &report, err); perr != nil {
			return perr
		}
		return err
	}
	return cmd
}

func (g *globals) printCheck(dir string, r *backup.Report, err error) error {
	if g.output == "json" {
		damage := []string{}
		for _, d := range r.Damage {
			damage = append(damage, d.Error())
		}
		out := map[string]any{
			"data_dir": dir, "sound": err == nil, "damage": damage,
			"member": kv.MemberID(r.Member.ID).String(), "cluster": kv.ClusterID(r.Member.Cluster).String(),
			"applied": r.Status.Applied, "revision": int64(r.Status.Revision),
			"hash": fmt.Sprintf("%016x", r.Status.Hash), "keys": r.Status.Keys,
			"log_first": r.Log.First, "log_last": r.Log.Last,
		}
		return printJSON(g.std.out, out)
	}
	var b strings.Builder
	if r.Member.ID != 0 {
		fmt.Fprintf(&b, "member     %v (%s) of cluster %v\n", kv.MemberID(r.Member.ID), r.Member.Name, kv.ClusterID(r.Member.Cluster))
	}
	for _, s := range r.Snapshots {
		verdict := "sound"
		if s.Err != nil {
			verdict = s.Err.Error()
		}
		fmt.Fprintf(&b, "snapshot   at index %d, %d bytes: %s\n", s.Index, s.Size, verdict)
	}
	if n := len(r.Log.Segments); n > 0 {
		fmt.Fprintf(&b, "log        entries %d to %d in %d files\n", r.Log.First, r.Log.Last, n)
		if r.Log.Torn {
			fmt.Fprintln(&b, "           its last write was cut by a crash; starting the member repairs that")
		}
	}
	if r.Status.Applied != 0 {
		fmt.Fprintf(&b, "state      applied %d, revision %d, %d keys, hash %016x\n",
			r.Status.Applied, r.Status.Revision, r.Status.Keys, r.Status.Hash)
	}
	if err == nil {
		fmt.Fprintf(&b, "%s is sound\n", dir)
	}
	_, werr := io.WriteString(g.std.out, b.String())
	return werr
}
