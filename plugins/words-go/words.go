// Counts the words of a text: one chunk for each line as it is counted, the totals as the result.
package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	handler "example.com/words-go/gen/exports/export_wharf_plugin_handler"
	manifest "example.com/words-go/gen/exports/export_wharf_plugin_manifest"
	subscriber "example.com/words-go/gen/exports/export_wharf_plugin_subscriber"
	_ "example.com/words-go/gen/exports/wit_exports"
	attempt "example.com/words-go/gen/imports/wharf_plugin_attempt"
	wharf "example.com/words-go/gen/imports/wharf_plugin_types"
	wit "example.com/words-go/gen/wit/types"
)

//go:embed manifest.toml
var text string

func init() {
	manifest.Describe = func() string { return text }
	handler.Handle = handle
	subscriber.Receive = receive
}

// Never called: the host calls what `init` names.
func main() {}

type order struct {
	Text    *string `json:"text"`
	PauseMs int64   `json:"pause-ms"`
	Fail    string  `json:"fail"`
}

type line struct {
	Line  int `json:"line"`
	Words int `json:"words"`
}

type totals struct {
	Lines      int `json:"lines"`
	Words      int `json:"words"`
	Characters int `json:"characters"`
}

type answer struct {
	Words    int    `json:"words"`
	Language string `json:"language"`
}

type result = wit.Result[[]byte, wharf.Failure]

// `count` is the only task that the manifest declares: the host sends no other.
func handle(job wharf.Job) result {
	order, failure := parse(job.Payload)
	if failure == nil && order.Fail != "" {
		failure = fail(order.Fail)
	}
	if failure != nil {
		return wit.Err[[]byte](*failure)
	}
	return count(order)
}

func receive(message wharf.Message) result {
	order, failure := parse(message.Payload)
	if failure != nil {
		return wit.Err[[]byte](*failure)
	}
	return wit.Ok[[]byte, wharf.Failure](encode(answer{len(strings.Fields(*order.Text)), "go"}))
}

func count(order order) result {
	lines := strings.Split(*order.Text, "\n")
	// What ends with a line's end has no line after it.
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	sum := totals{Characters: utf8.RuneCountInString(*order.Text)}
	for _, one := range lines {
		if attempt.Cancelled() {
			return discard(fmt.Sprintf("cancelled after line %d of %d", sum.Lines, len(lines)))
		}
		words := len(strings.Fields(one))
		sum.Lines++
		sum.Words += words
		if sent := attempt.Emit(encode(line{sum.Lines, words})); sent.IsErr() {
			return discard(sent.Err())
		}
		attempt.Progress(float32(sum.Lines)/float32(len(lines)), fmt.Sprintf("line %d of %d", sum.Lines, len(lines)))
		time.Sleep(time.Duration(order.PauseMs) * time.Millisecond)
	}
	return wit.Ok[[]byte, wharf.Failure](encode(sum))
}

// Fails as the order asks: to see what the host makes of it.
func fail(how string) *wharf.Failure {
	fmt.Fprintf(os.Stderr, "failing on request: %s\n", how)
	var failure wharf.Failure
	switch how {
	case "retry":
		failure = wharf.MakeFailureRetry("asked to fail")
	case "retry-after":
		failure = wharf.MakeFailureRetryAfter(wit.Tuple2[string, uint64]{F0: "asked to fail", F1: 1000})
	case "discard":
		failure = wharf.MakeFailureDiscard("asked to fail")
	default:
		panic("asked to panic")
	}
	return &failure
}

func discard(why string) result {
	return wit.Err[[]byte](wharf.MakeFailureDiscard(why))
}

func parse(payload []byte) (order, *wharf.Failure) {
	var order order
	err := json.Unmarshal(payload, &order)
	if err == nil && order.Text == nil {
		err = fmt.Errorf("it has no text")
	}
	if err != nil {
		failure := wharf.MakeFailureDiscard(fmt.Sprintf(`the payload is not {"text": "..."}: %v`, err))
		return order, &failure
	}
	return order, nil
}

func encode(value any) []byte {
	bytes, err := json.Marshal(value)
	if err != nil {
		panic(err) // numbers and plain text always fit JSON
	}
	return append(bytes, '\n')
}
