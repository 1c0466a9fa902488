package server

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/concord-kv/concord/kv"
)

// need is what a call asks of its caller.
type need string

// The needs, besides what is named like a right.
const (
	nothing   need = "nothing"
	goodToken need = "no bad token" // nobody need be anybody, but who shows a token must show a good one
	ownToken  need = "an access token, or auth"
	anyUser   need = "any user"
	reads     need = "read inside"
	writes    need = "write inside"
	both      need = "read and write inside"
	outside   need = "outside"
	cluster   need = "cluster"
	auth      need = "auth"
	backup    need = "backup"
	profiles  need = "telemetry"
	root      need = "root"
)

// row says what a method asks, by a request that leaves nothing for which the
// next one would be answered otherwise.
type row struct {
	method string
	need   need
	// body is the request in JSON, in which 'k' stands for a key in base64.
	body string
	// once says that the request does leave something: who may make it does
	// not.
	once bool
}

// What the calls find: leases of keys and of locks, and what is not there.
const (
	keyLease     = 7001
	sessionLease = 7002
	unknownID    = 77
)

// rows has every method of every service, and of some several requests.
func rows() (all []row) {
	for _, of := range [][]row{keyRows, leaseRows, clusterRows, authRows, sessionRows, publicRows} {
		for _, r := range of {
			for strings.Contains(r.body, "'") {
				before, rest, _ := strings.Cut(r.body, "'")
				key, after, _ := strings.Cut(rest, "'")
				r.body = before + `"` + base64.StdEncoding.EncodeToString([]byte(key)) + `"` + after
			}
			all = append(all, r)
		}
	}
	return all
}

const (
	putIn       = `{"request_put":{"key":'in/new',"value":'x'}}`
	putLeased   = `{"key":'in/new',"value":'x',"lease":7001}`
	compareIn   = `"compare":[{"key":'in/key',"target":"VERSION","result":"GREATER","version":0}]`
	everything  = `{"key":'` + "\x00" + `',"range_end":'` + "\x00" + `'}`
	nestedWrite = `{"success":[{"request_txn":{"failure":[` + putIn + `]}}]}`
)

var keyRows = []row{
	{method: "/etcdserverpb.KV/Range", need: reads, body: `{"key":'in/key'}`},
	{method: "/etcdserverpb.KV/Range", need: reads, body: `{"key":'in/',"range_end":'in0',"serializable":true}`},
	{method: "/etcdserverpb.KV/Range", need: outside, body: `{"key":'out/key'}`},
	{method: "/etcdserverpb.KV/Range", need: root, body: everything},
	{method: "/etcdserverpb.KV/RangeStream", need: reads, body: `{"key":'in/',"range_end":'in0'}`},
	{method: "/etcdserverpb.KV/RangeStream", need: root, body: everything},
	{method: "/etcdserverpb.KV/Put", need: writes, body: `{"key":'in/new',"value":'x'}`},
	{method: "/etcdserverpb.KV/Put", need: both, body: `{"key":'in/new',"value":'x',"prev_kv":true}`},
	{method: "/etcdserverpb.KV/Put", need: writes, body: putLeased},
	{method: "/etcdserverpb.KV/Put", need: outside, body: `{"key":'out/new',"value":'x'}`},
	{method: "/etcdserverpb.KV/DeleteRange", need: writes, body: `{"key":'in/gone'}`},
	{method: "/etcdserverpb.KV/DeleteRange", need: both, body: `{"key":'in/gone',"prev_kv":true}`},
	{method: "/etcdserverpb.KV/DeleteRange", need: root, body: everything, once: true},
	{method: "/etcdserverpb.KV/Txn", need: reads, body: `{` + compareIn + `,"success":[{"request_range":{"key":'in/key'}}]}`},
	{method: "/etcdserverpb.KV/Txn", need: writes, body: `{"failure":[` + putIn + `]}`},
	{method: "/etcdserverpb.KV/Txn", need: writes, body: nestedWrite},
	{method: "/etcdserverpb.KV/Txn", need: both, body: `{` + compareIn + `,"success":[` + putIn + `]}`},
	{method: "/etcdserverpb.KV/Compact", need: cluster, body: `{"revision":1099511627776}`},
	{method: "/etcdserverpb.Watch/Watch", need: reads, body: `{"create_request":{"key":'in/',"range_end":'in0'}}`},
	{method: "/etcdserverpb.Watch/Watch", need: outside, body: `{"create_request":{"key":'out/key'}}`},
	{method: "/etcdserverpb.Watch/Watch", need: root, body: `{"create_request":` + everything + `}`},
}

var leaseRows = []row{
	{method: "/etcdserverpb.Lease/LeaseGrant", need: anyUser, body: fmt.Sprintf(`{"TTL":600,"ID":%d}`, sessionLease)},
	{method: "/etcdserverpb.Lease/LeaseRevoke", need: anyUser, body: fmt.Sprintf(`{"ID":%d}`, unknownID)},
	{method: "/etcdserverpb.Lease/LeaseRevoke", need: writes, body: fmt.Sprintf(`{"ID":%d}`, keyLease), once: true},
	{method: "/etcdserverpb.Lease/LeaseKeepAlive", need: writes, body: fmt.Sprintf(`{"ID":%d}`, keyLease)},
	{method: "/etcdserverpb.Lease/LeaseTimeToLive", need: anyUser, body: fmt.Sprintf(`{"ID":%d}`, keyLease)},
	{method: "/etcdserverpb.Lease/LeaseTimeToLive", need: reads, body: fmt.Sprintf(`{"ID":%d,"keys":true}`, keyLease)},
	{method: "/etcdserverpb.Lease/LeaseLeases", need: reads, body: `{}`},
}

var clusterRows = []row{
	{method: "/etcdserverpb.Cluster/MemberAdd", need: cluster, body: `{"peerURLs":["http://127.0.0.1:1"],"isLearner":true}`, once: true},
	{method: "/etcdserverpb.Cluster/MemberRemove", need: cluster, body: `{"ID":77}`},
	{method: "/etcdserverpb.Cluster/MemberUpdate", need: cluster, body: `{"ID":77,"peerURLs":["http://127.0.0.1:1"]}`},
	{method: "/etcdserverpb.Cluster/MemberPromote", need: cluster, body: `{"ID":77}`},
	{method: "/etcdserverpb.Cluster/MemberList", need: anyUser, body: `{}`},
	{method: "/etcdserverpb.Cluster/MemberList", need: anyUser, body: `{"linearizable":true}`},
	{method: "/etcdserverpb.Maintenance/Alarm", need: anyUser, body: `{}`},
	{method: "/etcdserverpb.Maintenance/Alarm", need: cluster, body: `{"action":"DEACTIVATE","alarm":"NOSPACE"}`},
	{method: "/etcdserverpb.Maintenance/Status", need: anyUser, body: `{}`},
	{method: "/etcdserverpb.Maintenance/Defragment", need: cluster, body: `{}`},
	{method: "/etcdserverpb.Maintenance/Hash", need: backup, body: `{}`},
	{method: "/etcdserverpb.Maintenance/HashKV", need: backup, body: `{}`},
	{method: "/etcdserverpb.Maintenance/Snapshot", need: backup, body: `{}`},
	{method: "/etcdserverpb.Maintenance/MoveLeader", need: cluster, body: `{"targetID":77}`},
	{method: "/etcdserverpb.Maintenance/Downgrade", need: cluster, body: `{"action":"VALIDATE","version":"3.6.0"}`},
}

// authRows change nothing, so that no proof gets old.
var authRows = []row{
	{method: "/etcdserverpb.Auth/AuthStatus", need: goodToken, body: `{}`},
	{method: "/etcdserverpb.Auth/Authenticate", need: nothing, body: `{"name":"insider","password":"` + kv.NewSecretToken() + `"}`},
	{method: "/etcdserverpb.Auth/AuthEnable", need: auth, body: `{}`},
	{method: "/etcdserverpb.Auth/AuthDisable", need: root, body: `{}`, once: true},
	{method: "/etcdserverpb.Auth/UserAdd", need: auth, body: `{"name":"insider","options":{"no_password":true}}`},
	{method: "/etcdserverpb.Auth/UserGet", need: auth, body: `{"name":"root"}`},
	{method: "/etcdserverpb.Auth/UserList", need: auth, body: `{}`},
	{method: "/etcdserverpb.Auth/UserDelete", need: auth, body: `{"name":"nobody"}`},
	{method: "/etcdserverpb.Auth/UserChangePassword", need: auth, body: `{"name":"nobody","password":"x"}`},
	{method: "/etcdserverpb.Auth/UserGrantRole", need: auth, body: `{"user":"nobody","role":"none"}`},
	{method: "/etcdserverpb.Auth/UserGrantRole", need: root, body: `{"user":"insider","role":"root"}`, once: true},
	{method: "/etcdserverpb.Auth/UserRevokeRole", need: auth, body: `{"name":"nobody","role":"none"}`},
	{method: "/etcdserverpb.Auth/RoleAdd", need: auth, body: `{"name":"inside"}`},
	{method: "/etcdserverpb.Auth/RoleGet", need: auth, body: `{"role":"root"}`},
	{method: "/etcdserverpb.Auth/RoleList", need: auth, body: `{}`},
	{method: "/etcdserverpb.Auth/RoleDelete", need: auth, body: `{"role":"none"}`},
	{method: "/etcdserverpb.Auth/RoleGrantPermission", need: auth, body: `{"name":"none","perm":{"key":'k'}}`},
	{method: "/etcdserverpb.Auth/RoleRevokePermission", need: auth, body: `{"role":"none","key":'k'}`},
}

// heldElection is what the holder of the election's key knows of it; its revision
// is wrong.
const heldElection = `{"name":'in/election',"key":'in/election/1b5a',"lease":7002,"rev":77}`

// sessionRows ask for what is held already.
var sessionRows = []row{
	{method: "/v3lockpb.Lock/Lock", need: both, body: `{"name":'in/lock',"lease":7002}`},
	{method: "/v3lockpb.Lock/Unlock", need: writes, body: `{"key":'in/nothing'}`},
	{method: "/v3electionpb.Election/Campaign", need: both, body: `{"name":'in/election',"lease":7002,"value":'x'}`},
	{method: "/v3electionpb.Election/Proclaim", need: both, body: `{"leader":` + heldElection + `,"value":'x'}`},
	{method: "/v3electionpb.Election/Leader", need: reads, body: `{"name":'in/election'}`},
	{method: "/v3electionpb.Election/Observe", need: reads, body: `{"name":'in/election'}`},
	{method: "/v3electionpb.Election/Resign", need: both, body: `{"leader":` + heldElection + `}`},
}

var publicRows = []row{
	{method: "/grpc.health.v1.Health/Check", need: nothing, body: `{}`},
	{method: "/grpc.health.v1.Health/List", need: nothing, body: `{}`},
	{method: "/grpc.health.v1.Health/Watch", need: nothing, body: `{}`},
	{method: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", need: nothing, body: `{"list_services":"x"}`},
	{method: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", need: nothing, body: `{"list_services":"x"}`},
}

// page says what a route asks that is no method's.
type page struct {
	need need
	body string
	// once is as in row; open pages answer everybody with what they show.
	once, open bool
}

// unread is a request that is refused for what it is, after the caller was let
// in.
const unread = `{"no such field":1}`

// pages has every route of the mux but the gateway's.
var pages = map[string]page{
	"/version":      {need: nothing, open: true},
	"/health":       {need: nothing, open: true},
	"/livez":        {need: nothing, open: true},
	"/readyz":       {need: nothing, open: true},
	"/metrics":      {need: nothing, open: true},
	"/debug/vars":   {need: profiles},
	"/debug/pprof/": {need: profiles},
	"/v1/":          {need: nothing},
	"/v3/":          {need: nothing}, // there is nothing itself

	// These take as long as they are told to.
	"/debug/pprof/profile": {need: profiles, once: true},
	"/debug/pprof/trace":   {need: profiles, once: true},

	"GET /v1/cluster/status":       {need: anyUser},
	"GET /v1/cluster/members":      {need: anyUser},
	"GET /v1/cluster/autopilot":    {need: anyUser},
	"PUT /v1/cluster/autopilot":    {need: cluster, body: unread},
	"POST /v1/cluster/add":         {need: cluster, body: unread},
	"POST /v1/cluster/promote":     {need: cluster, body: unread},
	"POST /v1/cluster/remove":      {need: cluster, body: unread},
	"POST /v1/cluster/move-leader": {need: cluster, body: unread},
	"POST /v1/cluster/leave":       {need: cluster, body: unread},

	"GET /v1/log-level": {need: profiles},
	"PUT /v1/log-level": {need: cluster, body: unread},

	// A token sees itself, and may ask about itself; insider may ask about insider.
	"GET /v1/auth/tokens":           {need: ownToken},
	"POST /v1/auth/tokens":          {need: auth, body: unread},
	"DELETE /v1/auth/tokens/{name}": {need: auth},
	"POST /v1/auth/can":             {need: auth, body: `{"who":"user:nobody","access":"read","key":"k"}`},
}

// parts are the pages of which each is one of several, which ask the same.
var parts = map[string]page{
	"/livez/":       {need: nothing},
	"/readyz/":      {need: nothing},
	"/debug/pprof/": {need: profiles},
}
