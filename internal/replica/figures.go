package replica

// Waiting is how many proposals wait for an answer now, and how many bytes their
// commands have.
func (r *Replica) Waiting() (calls int, bytes int64) {
	r.calls.mu.Lock()
	defer r.calls.mu.Unlock()
	return r.calls.count, r.calls.bytes
}
