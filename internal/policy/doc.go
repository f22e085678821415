// Package policy holds the import policy: which package may import which. It has no code but its test.
package policy
