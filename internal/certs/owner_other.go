//go:build !unix

package certs

import "io/fs"

// ownedByRoot knows no owners here.
func ownedByRoot(fs.FileInfo) bool { return false }
