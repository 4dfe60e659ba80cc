// Counts the lines, words and characters of standard input. Nothing in it is made for one host.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

type totals struct {
	Lines      int `json:"lines"`
	Words      int `json:"words"`
	Characters int `json:"characters"`
}

func main() {
	bytes, err := io.ReadAll(os.Stdin)
	if err != nil {
		fail(74, err)
	}
	if len(bytes) == 0 {
		fail(65, "the text is empty")
	}
	text := string(bytes)
	lines := strings.Count(text, "\n")
	if !strings.HasSuffix(text, "\n") {
		lines++
	}
	counted := totals{lines, len(strings.Fields(text)), utf8.RuneCountInString(text)}
	if err := json.NewEncoder(os.Stdout).Encode(counted); err != nil {
		fail(74, err)
	}
}

// fail ends the program with an exit status, and says why on standard error.
func fail(status int, why any) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(status)
}
