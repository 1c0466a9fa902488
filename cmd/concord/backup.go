package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	write := func(w io.Writer) error { return c.Backup(ctx, io.MultiWriter(w, bar)) }
	if file == "-" {
		err := write(g.std.out)
		_ = bar.Close() // it cannot fail
		return err
	}
	started := time.Now()
	meta, err := backup.Save(file, write)
	_ = bar.Close() // it cannot fail
	if err != nil {
		return err
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
		f, size, err := openBackup(args[0])
		if err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		defer f.Close()
		bar := newProgress(g.std.err, size, "verify")
		meta, err := backup.Verify(io.TeeReader(f, bar))
		_ = bar.Close() // it cannot fail
		if err != nil {
			return badBackup(args[0], err)
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

func openBackup(file string) (*os.File, int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = &usageError{fmt.Errorf("%s is a directory, and a backup is a file", file), "Name the file that 'concord backup create' wrote."}
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// badBackup tells what is wrong with a backup, if it is that.
func badBackup(file string, err error) error {
	if damage := backup.Damage(err, file); damage != nil {
		text := strings.TrimPrefix(damage.Error(), "snap: ") // no word for people
		return &hintedError{errors.New(text), "This file must not be restored; take another backup."}
	}
	return err
}

// restoreOptions say what cluster a backup becomes.
type restoreOptions struct {
	dataDir, name string
	peers         []string
	bump          int64
}

func newBackupRestoreCommand(g *globals) *cobra.Command {
	var opts restoreOptions
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Make the data directory of a new cluster from a backup",
		Long: "Make the data directory of a new cluster from a backup. Keys, leases and\n" +
			"settings are the backup's. The cluster has a new id, so that members of the\n" +
			"old one are not mixed in, and its revisions are far above the backup's: the\n" +
			"old cluster went on after the backup, and no client may find its revisions\n" +
			"given out twice. Watches from an old revision are told that it is compacted.\n" +
			"With --bump-revision 0 revisions and history go on from the backup: right\n" +
			"when nothing was written after it.\n\n" +
			"The cluster starts with this one member. Start it with 'concord serve', then\n" +
			"start the others on empty directories with the same --peers: they join.",
		Example: "  concord backup restore monday.backup --data-dir data\n  concord serve --data-dir data",
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&opts.dataDir, "data-dir", "", "directory to make; it must not exist or be empty")
	cmd.Flags().StringVar(&opts.name, "name", "n1", "the member's name")
	cmd.Flags().StringSliceVar(&opts.peers, "peers", nil, "this member's NAME=HOST:PORT for other members")
	cmd.Flags().Int64Var(&opts.bump, "bump-revision", int64(backup.DefaultBump), "how far above the backup's the new revisions begin")
	cmd.RunE = func(_ *cobra.Command, args []string) error { return runBackupRestore(g, opts, args[0]) }
	return cmd
}

func runBackupRestore(g *globals, opts restoreOptions, file string) error {
	if opts.dataDir == "" {
		return usagef("--data-dir is missing; name the directory to make")
	}
	if opts.bump < 0 || opts.bump > 1<<40 {
		return usagef("--bump-revision %d is out of range; use 0 to %d", opts.bump, int64(1)<<40)
	}
	if err := checkName(opts.name); err != nil {
		return err
	}
	peers, err := parsePeers(opts.peers)
	if err != nil {
		return err
	}
	self := kv.Member{Name: opts.name}
	if addr := peers[opts.name]; addr != "" {
		self.PeerAddrs = []string{addr}
	} else if len(peers) > 0 {
		return usagef("--peers does not name this member, %s; give its address as %s=127.0.0.1:2380", opts.name, opts.name)
	}
	f, size, err := openBackup(file)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer f.Close()
	bar := newProgress(g.std.err, size, "restore")
	dir, err := filepath.Abs(opts.dataDir)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	made, err := backup.Restore(dir, io.TeeReader(f, bar), backup.Plan{Members: []kv.Member{self}, Bump: kv.Revision(opts.bump)})
	_ = bar.Close() // it cannot fail
	if err != nil {
		return badBackup(file, err)
	}
	list := ""
	if len(opts.peers) > 0 {
		list = " --peers " + strings.Join(opts.peers, ",")
	}
	fmt.Fprintf(g.std.err, "%s holds cluster %v of one member, %d keys at revision %d; start it with: concord serve --name %s --data-dir %s%s\n",
		opts.dataDir, made.Cluster, made.Status.Keys, made.Status.Revision, opts.name, opts.dataDir, list)
	return nil
}

func newCheckCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "check [DIR]", Short: "Verify the data directory of a member that is not running",
		Long: "Verify the data directory of a member that is not running: identity, log,\n" +
			"snapshots and the state that they make. Nothing is changed. Damage is named\n" +
			"by file and byte, with what to do, and ends with exit code 1; that the member\n" +
			"runs, or that a newer release wrote the data, with 4.",
		Example: "  concord check data",
	}
	return g.onDirectory(cmd, func(dir string) error {
		done := g.busy("check " + dir)
		report, err := backup.Check(dir)
		done()
		if err != nil && report.Member.ID == 0 && len(report.Damage) == 0 {
			return err // nothing was looked at
		}
		if perr := g.printCheck(dir, &report, err); perr != nil {
			return perr
		}
		return err
	})
}

// onDirectory makes cmd one that takes a data directory, as DIR or --data-dir.
func (g *globals) onDirectory(cmd *cobra.Command, run func(dir string) error) *cobra.Command {
	var dir string
	cmd.Args = cobra.MaximumNArgs(1)
	cmd.Flags().StringVar(&dir, "data-dir", "", "the directory, instead of DIR")
	g.addOutputFlag(cmd.Flags(), "value", "value, json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 1 && dir != "":
			return usagef("DIR and --data-dir exclude each other")
		case len(args) == 1:
			dir = args[0]
		}
		if dir == "" {
			return &usageError{errors.New("no data directory is given"), "Name it, as in '" + cmd.CommandPath() + " data'."}
		}
		if err := g.checkOutput("value", "json"); err != nil {
			return err
		}
		return run(dir)
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
	if n := len(r.Log.Segments); n > 0 && r.Log.Last < r.Log.First {
		fmt.Fprintf(&b, "log        no entry can be read, in %d files\n", n)
	} else if n > 0 {
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
