// The Go twin of pp2.ts: go-proxyproto of Debian, as its users call it. Reads the header given as
// hexadecimal digits so many times, addresses and TLVs, then writes it as often. Prints the
// nanoseconds that a header took.
//
//	parser HEX CALLS read|write
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

func main() {
	header, err := hex.DecodeString(os.Args[1])
	check(err)
	calls, err := strconv.Atoi(os.Args[2])
	check(err)
	run := read
	if os.Args[3] == "write" {
		run = write
	}
	run(header, calls/10+1)
	start := time.Now()
	run(header, calls)
	fmt.Println(float64(time.Since(start).Nanoseconds()) / float64(calls))
}

func read(header []byte, calls int) {
	source := bytes.NewReader(header)
	reader := bufio.NewReader(source)
	for call := 0; call < calls; call++ {
		source.Reset(header)
		reader.Reset(source)
		got, err := proxyproto.Read(reader)
		check(err)
		tlvs, err := got.TLVs()
		check(err)
		if got.SourceAddr == nil || len(tlvs) == 0 {
			check(fmt.Errorf("%d TLVs, source %v", len(tlvs), got.SourceAddr))
		}
	}
}

func write(header []byte, calls int) {
	got, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(header)))
	check(err)
	for call := 0; call < calls; call++ {
		written, err := got.Format()
		check(err)
		if len(written) != len(header) {
			check(fmt.Errorf("%d bytes written, not %d", len(written), len(header)))
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
