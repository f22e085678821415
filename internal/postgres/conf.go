package postgres

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// confName is our part of the configuration, rewritten at each start. ALTER SYSTEM wins over it.
const confName = "shardproxy.conf"

// defaultSettings suit a shard: logical decoding for moves, prepared transactions for commits over
// several shards, and small memory, because many servers share one machine.
var defaultSettings = map[string]string{
	"listen_addresses":                 "127.0.0.1",
	"unix_socket_directories":          "",
	"max_connections":                  "200",
	"max_prepared_transactions":        "200",
	"shared_buffers":                   "32MB",
	"wal_level":                        "logical",
	"max_wal_senders":                  "20",
	"max_replication_slots":            "40",
	"max_worker_processes":             "16",
	"max_wal_size":                     "512MB",
	"track_commit_timestamp":           "on",
	"hot_standby":                      "on",
	"wal_retrieve_retry_interval":      "200ms", // a replica finds its restarted primary soon
	"log_line_prefix":                  "%m [%p] %q%u@%d ",
	"log_checkpoints":                  "off",
	"log_timezone":                     "UTC",
	"timezone":                         "UTC",
	"password_encryption":              "scram-sha-256",
	"dynamic_shared_memory_type":       "posix",
	"logging_collector":                "off",
	"lc_messages":                      "C",
	"client_connection_check_interval": "1s", // a backend whose proxy was killed ends its statement
}

// ephemeralSettings give up durability for speed.
var ephemeralSettings = map[string]string{
	"fsync":              "off",
	"full_page_writes":   "off",
	"synchronous_commit": "off",
	"shared_buffers":     "16MB",
}

// trustLoopback lets everybody in who is on this machine.
const trustLoopback = `host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
`

// writeConf writes our settings for a start on port, and the access rules.
func (s *Server) writeConf(port int) error {
	settings := maps.Clone(defaultSettings)
	if s.cfg.Ephemeral {
		maps.Copy(settings, ephemeralSettings)
	}
	maps.Copy(settings, s.cfg.Settings)
	settings["port"] = strconv.Itoa(port)
	if p := s.cfg.Primary; p != nil {
		settings["primary_conninfo"] = fmt.Sprintf("host=%s port=%d user=%s application_name=%s sslmode=disable", p.Host(), p.Port(), Superuser, s.cfg.Name)
		settings["primary_slot_name"] = s.cfg.Slot
	}
	var b strings.Builder
	b.WriteString("# Written by shardproxy at each start.\n")
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	if err := s.write(confName, b.String()); err != nil {
		return err
	}
	hba := s.cfg.HBA
	if hba == "" {
		hba = trustLoopback
	}
	if err := s.write("pg_hba.conf", hba); err != nil {
		return err
	}
	return s.includeConf()
}

// includeConf makes postgresql.conf read our file, once.
func (s *Server) includeConf() error {
	path := filepath.Join(s.cfg.Dir, "postgresql.conf")
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	line := "include '" + confName + "'\n"
	if strings.HasSuffix(string(data), line) {
		return nil
	}
	return s.write("postgresql.conf", string(data)+line)
}

// write makes a file of the data folder that the servers' account owns.
func (s *Server) write(name, content string) error {
	path := filepath.Join(s.cfg.Dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return s.who.own(path)
}
