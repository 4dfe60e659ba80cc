// Reaches for the world outside with Go's own library, for the tests: what is denied comes back as the error's text.
package main

import (
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"time"

	handler "example.com/outside-go/gen/exports/export_wharf_plugin_handler"
	manifest "example.com/outside-go/gen/exports/export_wharf_plugin_manifest"
	_ "example.com/outside-go/gen/exports/wit_exports"
	wharf "example.com/outside-go/gen/imports/wharf_plugin_types"
	wit "example.com/outside-go/gen/wit/types"
)

//go:embed manifest.toml
var text string

func init() {
	manifest.Describe = func() string { return text }
	handler.Handle = handle
}

// Never called: the host calls what `init` names.
func main() {}

type order struct {
	Do   string `json:"do"`
	Path string `json:"path"`
	Text string `json:"text"`
}

func handle(job wharf.Job) wit.Result[[]byte, wharf.Failure] {
	var order order
	err := json.Unmarshal(job.Payload, &order)
	var answer any
	if err == nil {
		answer, err = obey(order)
	}
	if err != nil {
		return wit.Err[[]byte](wharf.MakeFailureDiscard(err.Error()))
	}
	bytes, err := json.Marshal(answer)
	if err != nil {
		panic(err) // all answers fit JSON
	}
	return wit.Ok[[]byte, wharf.Failure](bytes)
}

func obey(order order) (any, error) {
	switch order.Do {
	case "say":
		fmt.Println(order.Text)
		fmt.Fprintln(os.Stderr, order.Text)
		return nil, nil
	case "env":
		all := map[string]string{}
		for _, pair := range os.Environ() {
			name, value, _ := strings.Cut(pair, "=")
			all[name] = value
		}
		return all, nil
	case "time":
		return float64(time.Now().UnixMilli()) / 1000, nil
	case "random":
		bytes := make([]byte, 8)
		_, err := rand.Read(bytes)
		return []any{hex.EncodeToString(bytes), mathrand.Float64()}, err
	case "list":
		entries, err := os.ReadDir(order.Path)
		names := []string{}
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		return names, err
	case "read":
		bytes, err := os.ReadFile(order.Path)
		return string(bytes), err
	case "write":
		return len(order.Text), os.WriteFile(order.Path, []byte(order.Text), 0o644)
	default:
		return nil, fmt.Errorf("no such order: %s", order.Do)
	}
}
