package telemetry

// serviceFamilies are of what clients use, and of the server.
var serviceFamilies = []Family{
	{
		Name: "concord_watches", Help: "Watches that are open.", Kind: Gauge, Topic: topicWatches,
		one: func(s *sample) float64 { return float64(s.member.Watches.Open) },
	},
	{
		Name: "concord_watches_behind", Help: "Watches that have something to read, or whose client has not taken it yet.", Kind: Gauge, Topic: topicWatches,
		one: func(s *sample) float64 { return float64(s.member.Watches.Behind) },
	},
	{
		Name: "concord_watch_lag_revisions", Help: "By how many revisions the last of them is behind.", Kind: Gauge, Topic: topicWatches,
		one: func(s *sample) float64 { return float64(s.member.Watches.Lag) },
	},
	{
		Name: "concord_watch_created_total", Help: "Watches that began.", Topic: topicWatches, one: count(watchesCreated),
	},
	{
		Name: "concord_watch_cancelled_total", Help: "Watches that ended.", Topic: topicWatches, one: count(watchesCancelled),
	},
	{
		Name: "concord_watch_events_total", Help: "Events that watches were given.", Topic: topicWatches, one: count(watchEvents),
	},
	{
		Name: "concord_watch_lagging_total", Help: "How often a watch had more to read than it is given at once.", Topic: topicWatches, one: count(watchLags),
	},

	{
		Name: "concord_leases", Help: "Leases that exist.", Kind: Gauge, Topic: topicLeases,
		one: func(s *sample) float64 { return float64(s.member.Leases.Live) },
	},
	{
		Name: "concord_lease_keys", Help: "Keys that hang on leases.", Kind: Gauge, Topic: topicLeases,
		one: func(s *sample) float64 { return float64(s.member.Leases.Attached) },
	},
	{
		Name: "concord_ttl_keys", Help: "Keys that have a time to live of their own.", Kind: Gauge, Topic: topicLeases,
		one: func(s *sample) float64 { return float64(s.member.Leases.TTLs) },
	},
	{
		Name: "concord_lease_events_total", Help: "What happened to leases; every member counts all.", Topic: topicLeases, Labels: []string{"event"},
		each: counts(leasesGranted, "granted", "renewed", "revoked", "expired"),
	},
	{
		Name: "concord_ttl_expired_keys_total", Help: "Keys whose own time was over.", Topic: topicLeases, one: count(keysExpired),
	},

	{
		Name: "concord_auth_enabled", Help: "Whether authentication is on.", Kind: Gauge, Topic: topicAccess,
		one: func(s *sample) float64 { return oneIf(s.member.Access.Enabled) },
	},
	{
		Name: "concord_auth_users", Help: "Users that exist.", Kind: Gauge, Topic: topicAccess,
		one: func(s *sample) float64 { return float64(s.member.Access.Users) },
	},
	{
		Name: "concord_auth_roles", Help: "Roles that exist.", Kind: Gauge, Topic: topicAccess,
		one: func(s *sample) float64 { return float64(s.member.Access.Roles) },
	},
	{
		Name: "concord_auth_decisions_total", Help: "Logins that went well (login) or not (login_failed), callers who lack a right (denied), and tokens and certificates of no use (unknown).",
		Topic: topicAccess, Labels: []string{"decision"},
		each: counts(loginsGood, "login", "login_failed", "denied", "unknown"),
	},
	{
		Name: "concord_auth_passwords_checking", Help: "Passwords that are being checked, or wait for it.", Kind: Gauge, Topic: topicAccess,
		one: func(s *sample) float64 { return float64(s.member.Access.Checking) },
	},

	{
		Name: "concord_connections", Help: "Client connections that are open.", Kind: Gauge, Topic: topicServer,
		one: func(s *sample) float64 { return float64(s.server.Connections) },
	},
	{
		Name: "concord_limit_hits_total", Help: "What was refused because of a limit, by the limit's name.", Topic: topicServer, Labels: []string{"limit"},
		each: eachLimit,
	},
	{
		Name: "concord_certificate_expiry_timestamp_seconds", Help: "When the certificate that clients are shown ends, as Unix time; absent without TLS.", Kind: Gauge, Topic: topicServer,
		each: func(s *sample, put func(v float64, labels ...string)) {
			if ends := s.server.CertificateEnds; !ends.IsZero() {
				put(float64(ends.Unix()))
			}
		},
	},
}
