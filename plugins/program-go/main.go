// An ordinary program: writes its standard input in capitals. Nothing here knows Wharf. Its arguments make it do what the tests of
// programs need.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

func main() {
	what, number := "", 0
	if len(os.Args) > 1 {
		what = os.Args[1]
	}
	if len(os.Args) > 2 {
		number, _ = strconv.Atoi(os.Args[2])
	}
	switch what {
	case "--status":
		os.Exit(number)
	case "--panic":
		panic("asked to panic")
	case "--lines":
		for line := range number {
			fmt.Println("line", line)
		}
	case "--sleep":
		time.Sleep(time.Duration(number) * time.Millisecond)
	case "--heap":
		fmt.Println(heap(number))
	default:
		if err := capitals(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(74)
		}
	}
}

func capitals() error {
	text, err := io.ReadAll(bufio.NewReader(os.Stdin))
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, len(text), "bytes")
	_, err = os.Stdout.Write(bytes.ToUpper(text))
	return err
}

// heap fills so many MiB, and adds them up again.
func heap(mebibytes int) int {
	var all [][]byte
	for len(all) < mebibytes {
		all = append(all, bytes.Repeat([]byte{1}, 1<<20))
	}
	sum := 0
	for _, part := range all {
		for _, value := range part {
			sum += int(value)
		}
	}
	return sum
}
