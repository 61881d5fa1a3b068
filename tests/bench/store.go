package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// What the MinIO of a run knows its user by.
const (
	storeUser     = "shapeline"
	storePassword = "shapeline-bench"
	minioBinary   = ".tools/bin/minio" // as infra/need.sh makes it
)

// bucket is the URL of the machine's bucket. It starts a MinIO if that is wanted.
func (m *machine) bucket(ctx context.Context) (string, error) {
	if !m.minio {
		return "file://" + filepath.Join(m.dir, "bucket"), nil
	}
	if _, err := os.Stat(minioBinary); err != nil {
		return "", fmt.Errorf("%w: no MinIO: run infra/need.sh minio", errCannotRun)
	}
	addr, err := freeAddr()
	if err != nil {
		return "", err
	}
	m.store = exec.Command(minioBinary, "server", "--quiet", "--address", addr, filepath.Join(m.dir, "minio"))
	m.store.Env = append(os.Environ(), "MINIO_ROOT_USER="+storeUser, "MINIO_ROOT_PASSWORD="+storePassword)
	m.store.Stdout, m.store.Stderr = m.log, m.log
	m.store.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.store.Start(); err != nil {
		m.store = nil
		return "", fmt.Errorf("start MinIO: %w", err)
	}
	client, err := minio.New(addr, &minio.Options{Creds: credentials.NewStaticV4(storeUser, storePassword, "")})
	if err != nil {
		return "", fmt.Errorf("reach MinIO: %w", err)
	}
	for {
		err := client.MakeBucket(ctx, "bench", minio.MakeBucketOptions{})
		if err == nil {
			return "minio://" + addr + "/bench?tls=false", nil
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("make a bucket: %w", errors.Join(err, ctx.Err()))
		}
		time.Sleep(startPoll)
	}
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// end stops a process in order, or else.
func end(cmd *exec.Cmd) {
	ended := make(chan struct{})
	go func() { // ends with the process, which is waited for below
		_ = cmd.Wait() // how it ended is of no interest
		close(ended)
	}()
	_ = cmd.Process.Signal(syscall.SIGCONT)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(stopMax):
		_ = cmd.Process.Kill()
		<-ended
	}
}
