package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// prometheusAddr is in this process's own network.
const prometheusAddr = "127.0.0.1:9090"

// The two figures of the rules that are others here.
var (
	waits   = regexp.MustCompile(`(?m)^( +for:) \S+$`)
	windows = regexp.MustCompile(`\[(5|15)m\]`)
)

// startPrometheus has it scrape the members and judge by the rules.
func startPrometheus(c *cluster) (*exec.Cmd, error) {
	rules, err := os.ReadFile(c.plan.rules)
	if err != nil {
		return nil, err
	}
	rules = windows.ReplaceAll(waits.ReplaceAll(rules, []byte("$1 2s")), []byte("[15s]"))
	var config strings.Builder
	config.WriteString("global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: [rules.yaml]\nscrape_configs:\n  - job_name: concord\n    static_configs:\n")
	for _, m := range c.members {
		fmt.Fprintf(&config, "      - {targets: ['%s'], labels: {instance: %s}}\n", m.addr(), m.name)
	}
	dir := filepath.Join(c.plan.dir, "prometheus")
	err = errors.Join(os.MkdirAll(dir, 0o700),
		os.WriteFile(filepath.Join(dir, "rules.yaml"), rules, 0o600),
		os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config.String()), 0o600))
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(c.plan.dir, "prometheus.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+prometheusAddr)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, cmd.Start()
}

// page gets one, with its status.
func page(ctx context.Context, url string) (code int, text string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// firing are the alerts that fire, each by its labels.
func firing(ctx context.Context) (alerts []map[string]string, err error) {
	var answer struct {
		Data struct {
			Alerts []struct {
				Labels map[string]string `json:"labels"`
				State  string            `json:"state"`
			} `json:"alerts"`
		} `json:"data"`
	}
	_, text, err := page(ctx, "http://"+prometheusAddr+"/api/v1/alerts")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, fmt.Errorf("alerts: %w: %s", err, text)
	}
	for _, a := range answer.Data.Alerts {
		// What is filled for a test would fill the disk within hours: a forecast
		// over an hour says nothing here.
		if a.State == "firing" && a.Labels["alertname"] != "ConcordDiskFilling" {
			alerts = append(alerts, a.Labels)
		}
	}
	return alerts, nil
}

// fires tells whether the alert is among those that fire.
func (a alert) fires(alerts []map[string]string) bool {
	for _, labels := range alerts {
		same := labels["alertname"] == a.name
		for name, value := range a.labels {
			same = same && labels[name] == value
		}
		if same {
			return true
		}
	}
	return false
}

// scraped tells whether Prometheus has had an answer of all members just now.
func scraped(ctx context.Context) error {
	_, text, err := page(ctx, "http://"+prometheusAddr+"/api/v1/query?query=sum(up)")
	if err == nil && !strings.Contains(text, fmt.Sprintf(`"%d"]`, size)) {
		err = fmt.Errorf("not all members are scraped: %s", text)
	}
	return err
}

// calm waits until all members are ready and none has a note, and no alert fires.
func (c *cluster) calm(ctx context.Context) error {
	return within(ctx, func(ctx context.Context) error {
		for _, m := range c.members {
			code, text, err := page(ctx, "http://"+m.addr()+"/readyz?verbose")
			if err != nil {
				return err
			}
			if code != http.StatusOK || strings.Contains(text, "[!]") {
				return fmt.Errorf("/readyz of %s: %d %s", m.name, code, text)
			}
		}
		if err := scraped(ctx); err != nil {
			return err
		}
		alerts, err := firing(ctx)
		if err == nil && len(alerts) > 0 {
			err = fmt.Errorf("alerts fire: %v", alerts)
		}
		return err
	})
}

// told waits until all that has to be told of the fault is, and prints when each
// thing first was.
func (c *cluster) told(ctx context.Context, f *fault, start time.Time) error {
	say := func(what, text string) {
		fmt.Printf("  %6.1f s  %-38s %s\n", time.Since(start).Seconds(), what, text)
	}
	left := f.alerts
	err := within(ctx, func(ctx context.Context) error {
		alerts, err := firing(ctx)
		if err != nil {
			return err
		}
		var still []alert
		for _, a := range left {
			if a.fires(alerts) {
				say(a.name, fmt.Sprint("fires ", a.labels))
			} else {
				still = append(still, a)
			}
		}
		if left = still; len(left) > 0 {
			return fmt.Errorf("alerts do not fire: %v; those that do: %v", left, alerts)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = within(ctx, func(ctx context.Context) error {
		code, text, err := page(ctx, "http://"+f.by.addr()+"/readyz?verbose")
		if err != nil {
			return err
		}
		line, found := lineWith(text, f.page)
		if unready := strings.HasPrefix(f.page, "[-]"); !found || unready != (code != http.StatusOK) {
			return fmt.Errorf("/readyz of %s has no %q: %d %s", f.by.name, f.page, code, text)
		}
		say(fmt.Sprintf("/readyz of %s: %d", f.by.name, code), line)
		return nil
	})
	if err != nil {
		return err
	}
	for _, view := range [][]string{{"cluster", "status"}, {"top", "--once"}} {
		err := within(ctx, func(ctx context.Context) error {
			args := append(view, "--endpoints", f.asked.addr())
			// Without a majority the exit code is not 0: what is printed counts.
			out, err := exec.CommandContext(ctx, c.plan.binary, args...).CombinedOutput()
			line, found := lineWith(string(out), f.says)
			if !found {
				return fmt.Errorf("%v does not say %q, but %w: %s", args, f.says, err, out)
			}
			say(strings.Join(view, " "), line)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lineWith finds the line with a text.
func lineWith(text, part string) (string, bool) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return strings.TrimSpace(line), true
		}
	}
	return "", false
}
