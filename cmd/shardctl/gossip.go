package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func (o *options) gossipCommand() *cobra.Command {
	keys := group("keys", "The keys that encrypt gossip, and let proxies in",
		o.showCommand("list", "The keys of each proxy, by fingerprint", "SHOW GOSSIP KEYS"),
		o.addKeyCommand(),
		o.keyCommand("use", "Let all live proxies encrypt with a key that each of them has", "GOSSIP KEY USE "),
		o.keyCommand("remove", "Let all live proxies refuse a key that none of them uses", "GOSSIP KEY REMOVE "),
	)
	keys.Long = `A rotation has three steps, each of which goes to all live proxies, and is refused where it would cut one off:

    openssl rand -base64 32 > key
    shardctl gossip keys add -f key
    shardctl gossip keys list            # says the fingerprints, and whether all have it
    shardctl gossip keys use FINGERPRINT
    shardctl gossip keys remove OLD-FINGERPRINT

Proxies keep nothing of it: change gossip.keys in their configurations as well, before "use", so that one that restarts is
let in.`
	return group("gossip", "The way between the proxies", keys)
}

func (o *options) addKeyCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "add -f FILE", Short: "Let all live proxies read what is encrypted with a key",
		Long:    "Gives a key of 16, 24 or 32 bytes, in base64, to all live proxies. It is read from a file, or with -f - from standard input, so\nthat no list of processes shows it.",
		Example: "  openssl rand -base64 32 > key\n  shardctl gossip keys add -f key",
		Args:    between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := readKey(cmd, file)
			if err != nil {
				return err
			}
			return o.changeKeys(cmd, "GOSSIP KEY ADD "+literal(key))
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file with the key; - is standard input")
	return cmd
}

func readKey(cmd *cobra.Command, file string) (string, error) {
	var text []byte
	var err error
	switch file {
	case "":
		return "", usageError{cmd.CommandPath(), errors.New("-f is missing: the file with the key")}
	case "-":
		text, err = io.ReadAll(cmd.InOrStdin())
	default:
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(text)), nil
}

func (o *options) keyCommand(name, short, sql string) *cobra.Command {
	return &cobra.Command{
		Use: name + " FINGERPRINT", Short: short, Args: between(1, 1), ValidArgsFunction: o.completeKey,
		RunE: func(cmd *cobra.Command, args []string) error { return o.changeKeys(cmd, sql+literal(args[0])) },
	}
}

// changeKeys runs a step of a rotation, and fails where a proxy did not do it.
func (o *options) changeKeys(cmd *cobra.Command, sql string) error {
	tables, err := o.query(cmd, sql)
	if err != nil {
		return err
	}
	t := &tables[0]
	var failed []string
	for i := range t.rows {
		if why := t.value(i, "error"); why != "" {
			failed = append(failed, fmt.Sprintf("%s: %s", t.value(i, "peer"), why))
		}
	}
	if failed != nil {
		return fmt.Errorf("not done by all proxies, repeat it: %s", strings.Join(failed, "; "))
	}
	if o.json {
		return t.json(cmd.OutOrStdout())
	}
	return t.text(cmd.OutOrStdout())
}

// completeKey offers the fingerprints.
func (o *options) completeKey(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	tables, err := o.query(cmd, "SHOW GOSSIP KEYS")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // there is no place to say why
	}
	var keys []string
	seen := map[string]bool{"": true}
	for i := range tables[0].rows {
		if key := tables[0].value(i, "fingerprint"); !seen[key] {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	return keys, cobra.ShellCompDirectiveNoFileComp
}
