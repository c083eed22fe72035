// Package menu is what each conformance function in Go does, whichever library serves it. See
// ../../README.md.
package menu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

type event struct {
	Do    string          `json:"do"`
	Value json.RawMessage `json:"value"`
	Text  string          `json:"text"`
	Path  string          `json:"path"`
	Name  string          `json:"name"`
	N     int             `json:"n"`
	MB    int             `json:"mb"`
	MS    int             `json:"ms"`
	S     float64         `json:"s"`
	To    []string        `json:"to"`
	Paths []string        `json:"paths"`
}

type limited struct {
	Limited bool `json:"limited"`
	MiB     int  `json:"mib"`
}

var (
	count int
	kept  [][]byte
)

// Handle does what the event says; an event that is no order comes back.
func Handle(payload json.RawMessage) (any, error) {
	var e event
	if json.Unmarshal(payload, &e) != nil {
		return payload, nil
	}
	if answer, err, ended := end(e); ended {
		return answer, err
	}
	if answer, err, printed := print(e); printed {
		return answer, err
	}
	switch e.Do {
	case "echo":
		return e.Value, nil
	case "fill":
		return strings.Repeat("x", e.N-2), nil
	case "allocate":
		for range e.MB {
			kept = append(kept, []byte(strings.Repeat("x", 1<<20)))
		}
		return len(kept), nil
	case "fillTmp":
		return fillTmp(), nil
	case "openFiles":
		return openFiles(e.N), nil
	case "forkBomb":
		return forkBomb(), nil
	case "connect":
		return connect(e.To), nil
	case "count":
		count++
		return count, nil
	case "env":
		return os.Getenv(e.Name), nil
	case "cwd":
		return os.Getwd()
	case "read":
		data, err := os.ReadFile(e.Path)
		return string(data), err
	case "write":
		return nil, os.WriteFile(e.Path, []byte(e.Text), 0o600)
	case "isolation":
		return isolation(e.Paths), nil
	}
	return payload, nil
}

// end is the part of the menu that fails, ends the process, or lasts.
func end(e event) (any, error, bool) {
	switch e.Do {
	case "raise":
		return nil, errors.New("boom"), true
	case "panic":
		panic("boom")
	case "exit":
		os.Exit(3)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "segfault":
		// Go's runtime turns a fault of its own into a panic; this one has the system's action.
		_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
		time.Sleep(time.Minute)
	case "spin":
		for {
		}
	case "sleep":
		time.Sleep(time.Duration(e.S * float64(time.Second)))
		return nil, nil, true
	case "children":
		child := exec.Command("setsid", "sh", "-c", "sleep 600 & echo child $!")
		child.Stdout = os.Stdout
		err := child.Run()
		time.Sleep(time.Duration(e.S * float64(time.Second)))
		return nil, err, true
	}
	return nil, nil, false
}

// print is the part of the menu that writes to the log.
func print(e event) (any, error, bool) {
	var err error
	switch e.Do {
	case "print":
		fmt.Println(e.Text)
	case "printMuch":
		fmt.Println("first line")
		block := strings.Repeat(strings.Repeat("y", 99)+"\n", 10486)
		for range e.MB {
			_, err = io.WriteString(os.Stdout, block)
		}
		fmt.Println("last line")
	case "printInvalid":
		_, err = os.Stdout.Write([]byte("be\xff\xfefore\n"))
	case "printLong":
		fmt.Println(strings.Repeat("z", e.N))
	case "bothStreams":
		for n := range e.N {
			fmt.Printf("out %d\n", n)
			fmt.Fprintf(os.Stderr, "err %d\n", n)
		}
	case "late":
		time.AfterFunc(time.Duration(e.MS)*time.Millisecond, func() { fmt.Println("late line") })
	default:
		return nil, nil, false
	}
	return nil, err, true
}

func openFiles(n int) map[string]bool {
	for range n {
		file, err := os.Open("/dev/null")
		if err != nil {
			return map[string]bool{"limited": true}
		}
		defer file.Close()
	}
	return map[string]bool{"limited": false}
}

// forkBomb does without os/exec, which needs a descriptor for each child.
func forkBomb() map[string]bool {
	var children []int
	defer func() {
		for _, child := range children {
			_ = syscall.Kill(child, syscall.SIGKILL)
			_, _ = syscall.Wait4(child, nil, 0, nil)
		}
	}()
	for range 5000 {
		child, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "600"}, nil)
		if err != nil {
			return map[string]bool{"limited": true}
		}
		children = append(children, child)
	}
	return map[string]bool{"limited": false}
}

// connect tells the addresses that accept a connection.
func connect(addresses []string) map[string]any {
	reached := []string{}
	for _, address := range addresses {
		if conn, err := net.DialTimeout("tcp", address, time.Second/2); err == nil {
			conn.Close()
			reached = append(reached, address)
		}
	}
	return map[string]any{"reached": reached}
}

func seesServer() bool {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		words, _ := os.ReadFile(line)
		if slices.Contains(strings.Split(string(words), "\x00"), "--data") {
			return true
		}
	}
	return false
}

func fillTmp() limited {
	file, err := os.Create("/tmp/full")
	if err != nil {
		return limited{}
	}
	defer os.Remove("/tmp/full")
	defer file.Close()
	block := make([]byte, 1<<20)
	for mib := range 1024 {
		if _, err := file.Write(block); err != nil {
			return limited{Limited: true, MiB: mib}
		}
	}
	return limited{MiB: 1024}
}

func isolation(paths []string) map[string]any {
	writable := func(path string) bool {
		file, err := os.Create(path)
		if err == nil {
			file.Close()
		}
		return err == nil
	}
	status, _ := os.ReadFile("/proc/self/status")
	field := func(name string) string {
		found := regexp.MustCompile(`(?m)^` + name + `:\s*(\S+)`).FindSubmatch(status)
		if found == nil {
			return ""
		}
		return string(found[1])
	}
	caps := strings.Trim(field("CapEff"), "0")
	if caps == "" {
		caps = "none"
	}
	sockets, secrets := []string{}, []string{}
	entries, _ := os.ReadDir("/run/hanshu")
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".sock") {
			sockets = append(sockets, entry.Name())
		}
	}
	for _, pair := range os.Environ() {
		if strings.HasPrefix(pair, "HANSHU_") {
			secrets = append(secrets, strings.SplitN(pair, "=", 2)[0])
		}
	}
	slices.Sort(secrets)
	reads := []string{}
	for _, path := range paths {
		if syscall.Access(path, 4) == nil {
			reads = append(reads, path)
		}
	}
	_, shadow := os.ReadFile("/etc/shadow")
	_, init := os.ReadFile("/proc/1/environ")
	return map[string]any{
		"uid": os.Getuid(), "caps": caps, "noNewPrivs": field("NoNewPrivs"),
		"dockerSocket": syscall.Access("/var/run/docker.sock", 6) == nil,
		"writesCode":   writable("/var/user/new"),
		"writesRoot":   writable("/new") || writable("/etc/new") || writable("/usr/new"),
		"writesRun":    writable("/run/hanshu/new"),
		"readsInit":    init == nil, "seesServer": seesServer(), "reads": reads,
		"readsShadow": shadow == nil, "sockets": sockets, "secrets": secrets,
	}
}
