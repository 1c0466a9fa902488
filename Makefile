# make without a target lists the targets.

.DEFAULT_GOAL := help
.PHONY: help build test race lint fuzz sim sim-long kills powercut silences rolls formations chaos-short bench-embedded bench-writer bench-restart ci

# Seeds and sizes can be given: make sim SEEDS=5000 START=1000
SEEDS ?= 1000
START ?= 1
SEED  ?= 1
KILLS ?= 1000
CUTS  ?= 100
SILENCES ?= 200
ROLLS ?= 50
FORMATIONS ?= 20
HOURS ?= 8
OPERATIONS ?= 60000
BENCH ?= -stores concord,hashicorp,etcd -members 1 -writers 1024 -rounds 3
KEYS  ?= 1000000

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the program, as ./bin/concord
	go build -o bin/concord ./cmd/concord

test: ## all tests, as the README says
	go test ./...

race: ## all tests but the simulator's, with the race detector
	.ci/run race

lint: ## formatting, vet, the project's own rules, staticcheck
	.ci/run fmt vet staticcheck
	go test ./internal/lint

fuzz: ## every fuzz test for FUZZ_TIME (3s)
	.ci/run fuzz

# What strangers can send to a member: see docs/SECURITY.md.
STRANGERS = ./server:FuzzMethods ./server:FuzzHTTP ./server:FuzzConnection ./internal/etcdapi:FuzzJWT ./internal/etcdapi:FuzzExtensions \
	./kv:FuzzParseSecretToken ./internal/restapi:FuzzRead ./internal/restapi:FuzzToken .:FuzzPeerRequest ./internal/transport:FuzzFrames ./internal/transport:FuzzHandshake ./internal/transport:FuzzEndpoint \
	./internal/founding:FuzzMessage ./internal/replica:FuzzReceive ./internal/replica:FuzzPayload ./internal/snap:FuzzVerify \
	./internal/discovery:FuzzGossip ./internal/discovery:FuzzState ./internal/discovery:FuzzAnnouncement ./internal/discovery:FuzzBeacon ./internal/discovery:FuzzSeeds
LONG ?= 10m

.PHONY: fuzz-long secrets security

fuzz-long: ## everything that strangers can send to a member, LONG (10m) each, one after the other
	for target in $(STRANGERS); do \
		echo "$$target"; go test $${target%%:*} -run '^$$' -fuzz "^$${target##*:}\$$" -fuzztime $(LONG) -fuzzminimizetime 300x -parallel 1 -timeout 0 || exit 1; \
	done

secrets: ## a member's life, and that of three, with canaries for secrets, which are looked for in all that they leave and say
	go test -tags long ./cmd/concord -run '^(TestScannerFindsLeaks|TestSecrets)' -count=1 -v -timeout 30m

.PHONY: rotation compat-prod
rotation: ## the secret of three processes is changed twice under writes at each: none may fail
	go test -tags long ./cmd/concord -run '^TestRotation$$' -count=1 -v -timeout 30m

.PHONY: limits
limits: ## 10,000 idle connections, 1,000 watchers that never read, slow headers and messages that never come whole against a real process under writes (ulimit -n 11000)
	go run ./internal/siege

security: ## govulncheck, which needs its database, and gosec, whose findings docs/SECURITY.md answers (downloads both)
	.ci/security

SIM = go test ./internal/sim -run '^TestSeeds$$' -count=1 -v -timeout 0 -sim.start=$(START)

sim: ## SEEDS (1000) simulated clusters of a minute each, from seed START (1)
	$(SIM) -sim.seeds=$(SEEDS) -sim.time=24h

FORMS ?= 1000

.PHONY: formation
formation: ## FORMS (1000) simulated foundings of clusters of each kind, from seed START (1)
	go test ./internal/sim -run '^TestFormation$$' -count=1 -v -timeout 0 -sim.start=$(START) -form.seeds=$(FORMS)

sim-long: ## as many of them as HOURS (8) hold
	$(SIM) -sim.seeds=0 -sim.time=$(HOURS)h

kills: ## KILLS (1000) times kill -9 of real processes under load, by SEED (1)
	go run ./internal/chaos -kinds leader,member,all -faults $(KILLS) -seed $(SEED)

powercut: ## CUTS (100) power cuts of real processes under load, by SEED (1); needs root
	go run ./internal/chaos -kinds power -faults $(CUTS) -seed $(SEED)

rolls: ## ROLLS (50) rolling restarts and as many moves of the leader under 1,000 requests a second, by SEED (1)
	go run ./internal/chaos -kinds roll -clients 20 -rate 50 -faults $(ROLLS) -seed $(SEED)
	go run ./internal/chaos -kinds move -clients 20 -rate 50 -faults $(ROLLS) -seed $(SEED)

formations: ## FORMATIONS (20) clusters of real processes that form, heal and move in network namespaces, by SEED (1); needs root and iproute2
	go run ./internal/formation -rounds $(FORMATIONS) -seed $(SEED)
	go run ./internal/formation -rounds $(FORMATIONS) -seed $(SEED) -processes 3 -expect 1

silences: ## SILENCES (200) pauses and cuts of the leader under load, by SEED (1), in election timeouts
	go run ./internal/chaos -kinds pause,cut -round 25 -faults $(SILENCES) -seed $(SEED)

.PHONY: discovery-netns
discovery-netns: ## processes find each other in network namespaces (needs root and iproute2)
	go test -tags netns ./internal/discovery -run '^TestNetns' -count=1 -v

chaos-short: ## a dozen kills, pauses and cuts, as for every change
	.ci/run chaos

bench-embedded: ## Concord beside hashicorp/raft and etcd in one process (downloads them)
	go -C bench run ./embedded $(BENCH)

bench-writer: ## one writer on one member beside the disk's own fdatasync, in turns
	go -C bench run ./embedded -mode writer -rounds 40

bench-restart: build ## KEYS (1000000): how soon a member serves after kill -9, and its memory
	go -C bench run ./restart -binary "$(CURDIR)/bin/concord" -keys $(KEYS)

NETWORK ?= -members 1 -clients 1,100,1000 -ops put,get -rounds 5

.PHONY: bench-network bench-watchers bench-leases bench-auth bench-telemetry
bench-network: build ## servers beside etcd's, with etcd's Go client (downloads etcd)
	go -C bench run ./network -concord "$(CURDIR)/bin/concord" $(NETWORK)

bench-auth: build ## what authentication costs, beside what it costs etcd: 20 pairs
	go -C bench run ./network -concord "$(CURDIR)/bin/concord" -stores concord-auth,concord,concord-token -clients 100 -conns 10 -rounds 20 -duration 2s $(NETWORK)
	go -C bench run ./network -stores etcd-auth,etcd -clients 100 -conns 10 -rounds 20 -duration 2s $(NETWORK)

bench-telemetry: build ## what reading metrics and tracing one call in a hundred costs: 20 pairs; with -stores concord-observed,baseline -baseline FILE beside another build
	go -C bench run ./network -concord "$(CURDIR)/bin/concord" -stores concord-observed,concord -clients 100 -conns 10 -rounds 20 -duration 2s $(NETWORK)

bench-watchers: NETWORK = -rounds 5
bench-watchers: build ## puts beside 100,000 watchers, of keys and of ranges, and beside some that never read
	go -C bench run ./network -concord "$(CURDIR)/bin/concord" -ops watchers -clients 100 $(NETWORK)

bench-leases: NETWORK = -rounds 5
bench-leases: build ## puts beside 100,000 leases that are kept alive; with -members 3 the leader is killed meanwhile
	go -C bench run ./network -concord "$(CURDIR)/bin/concord" -ops leases -clients 100 $(NETWORK)

.PHONY: compat-kubernetes compat-kube-apiserver compat-npm compat-python compat-coredns compat-patroni compat compat-differential compat-common compat-rights compat-etcdctl compat-clientv3 compat-migrate compat-shim compat-gateway

compat: compat-differential compat-common compat-rights compat-etcdctl compat-clientv3 compat-migrate compat-shim compat-gateway compat-npm compat-coredns ## etcd's clients and answers beside ours (downloads etcd); see docs/COMPATIBILITY.md

compat-differential: ## OPERATIONS (60000) random ones on etcd and Concord, and every error, by SEED
	go -C compat test ./differential -count=1 -v -timeout 60m -args -operations $(OPERATIONS) -seed $(SEED)

compat-common: ## what etcd's own tests of its API ask for, on etcd, one member and three, plain and with TLS
	go -C compat test ./commonapi -count=1 -timeout 60m

compat-rights: ## every method and route with every kind of credentials, on etcd and on three members
	go -C compat test ./rights -count=1 -v -timeout 60m

compat-gateway: ## the JSON gateway, pages, Lock and Election of etcd and Concord side by side
	go -C compat test ./gateway -count=1 -v -timeout 15m

compat-prod: ## etcdctl and curl (which is needed) on three members of concord serve --env prod: TLS, certificates, passwords, tokens
	go -C compat test ./etcdctl -run '^TestProd$$' -count=1 -v -timeout 15m

compat-etcdctl: ## etcd's etcdctl on etcd and on three members of concord dev; and what compat-prod does
	go -C compat test ./etcdctl -count=1 -timeout 20m

compat-clientv3: ## etcd's Go client with concurrency, leasing, mirror, namespace, naming, ordering
	go -C compat test ./clientv3 -count=1 -v -timeout 10m

compat-migrate: ## 100,000 keys from Concord to etcd by etcdutl, and from etcd to Concord by concord import
	go -C compat test ./migrate -count=1 -v -timeout 30m

compat-shim: ## the program under the name etcd, by etcd's command lines, with and without TLS
	go -C compat test ./shim -count=1 -timeout 15m

compat-kubernetes: ## the storage tests of k8s.io/apiserver on etcd, one member and three (downloads that and etcd)
	go -C compat/kubernetes test . -count=1 -v -timeout 30m

FOREIGN = go -C compat test ./foreign -count=1 -v -timeout 30m -run

compat-npm: ## the npm client etcd3 on etcd, one member and three (needs npm and Node 20.14)
	$(FOREIGN) TestNpm

PYTHON_PACKAGES = python3-etcd3 python3-etcd3gw

compat-python: ## Debian's python3-etcd3 and -etcd3gw likewise (installs them with apt-get, which needs root)
	dpkg -s $(PYTHON_PACKAGES) >/dev/null 2>&1 || apt-get install -y --no-install-recommends $(PYTHON_PACKAGES)
	$(FOREIGN) TestPython

compat-coredns: ## CoreDNS with its etcd plugin likewise (downloads CoreDNS)
	$(FOREIGN) TestCoreDNS

compat-kube-apiserver: ## kube-apiserver likewise, three on one store, also with TLS (builds it, which takes long the first time)
	$(FOREIGN) TestKubeAPI -timeout 90m

PATRONI_PACKAGES = patroni python3-psycopg2 postgresql procps

compat-patroni: ## Debian's Patroni with three PostgreSQL likewise (installs them with apt-get, which needs root)
	dpkg -s $(PATRONI_PACKAGES) >/dev/null 2>&1 || apt-get install -y --no-install-recommends $(PATRONI_PACKAGES)
	$(FOREIGN) TestPatroni

.PHONY: telemetry
telemetry: ## the alerts' rules and their tests (installs Debian's prometheus, which needs root)
	command -v promtool >/dev/null || apt-get install -y --no-install-recommends prometheus
	promtool check rules deploy/prometheus/alerts.yaml
	promtool test rules deploy/prometheus/alerts_test.yaml
	go test ./internal/telemetry -count=1

.PHONY: telemetry-faults
telemetry-faults: ## faults of real processes, and whether a real Prometheus, /readyz, cluster status and top tell of them (needs root and Debian's prometheus)
	command -v prometheus >/dev/null || apt-get install -y --no-install-recommends prometheus
	go run ./internal/alarms

ci: ## what is run for every change; under 30 minutes on two cores
	.ci/run
