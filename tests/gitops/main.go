// Judges objects as GitOps tools do: by kstatus (Flux), or by a Lua script as Argo CD runs it.
//
// A request a line on the standard input, an answer a line on the standard output:
//
//	{"object": {...}}                    -> {"status": "Current", "message": "..."}
//	{"object": {...}, "script": "..."}   -> {"value": ...} or {"error": "..."}
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type request struct {
	Object json.RawMessage `json:"object"`
	Script string          `json:"script"`
}

type answer struct {
	Status  string          `json:"status,omitempty"`
	Message string          `json:"message,omitempty"`
	Value   json.RawMessage `json:"value,omitempty"`
	Error   string          `json:"error,omitempty"`
}

func main() {
	lines := bufio.NewReader(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		if err := answers.Encode(judge(line)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func judge(line []byte) answer {
	var asked request
	if err := json.Unmarshal(line, &asked); err != nil {
		return answer{Error: err.Error()}
	}
	if asked.Script != "" {
		value, err := runScript(asked.Script, asked.Object)
		if err != nil {
			return answer{Error: err.Error()}
		}
		return answer{Value: value}
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(asked.Object); err != nil {
		return answer{Error: err.Error()}
	}
	found, err := status.Compute(object)
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Status: found.Status.String(), Message: found.Message}
}
