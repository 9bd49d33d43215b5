// Package tools holds, as imports, the programs that the test cluster builds: etcd's own go.mod has replace lines, so `go install` refuses it from outside.
package tools

import (
	_ "go.etcd.io/etcd/server/v3"
)
