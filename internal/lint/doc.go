// Package lint keeps the shape of the project true: who may import whom, how
// large things may get, what the deterministic half may not do. Its tests read
// the whole tree and fail with the place and the rule.
//
//	go test ./internal/lint
package lint
