package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"shardproxy/wire"
)

// Process is the program that the console runs in.
type Process interface {
	Settings() []Setting // that are in force, in the order of the configuration file
	// Set changes one key until the next Reload.
	Set(key, value string) error
	// Reload reads the configuration file again and puts in force what can be changed while the process runs: changed. What
	// has changed in the file and needs a restart, restart names. After an error all is as before.
	Reload() (changed, restart []string, err error)
	Shutdown(how Shutdown) // begins to end the process
}

// Setting is one key of the configuration file.
type Setting struct {
	Key, Value, Default string
	Live                bool // a change is put in force by Reload
}

// Errors of Process.Set; any other says why the value cannot be used.
var (
	ErrUnknownKey = errors.New("unrecognized configuration parameter")
	ErrFixedKey   = errors.New("it cannot be changed while the proxy runs")
	ErrListKey    = errors.New("it is a list or a secret, and can only be changed in the file")
)

const (
	codeConfigFile    = "F0000" // config_file_error
	codeCannotChange  = "55P02" // cant_change_runtime_param
	problemsMax       = 20      // problems of a file that one error tells of
	setForm           = "SET key = value"
	helpSet           = "change a key of the configuration until the next RELOAD; SHOW CONFIG lists them"
	helpReload        = "read the configuration file again; a notice names what needs a restart"
	helpShowConfig    = "the configuration that is in force; what is changeable, RELOAD changes, and SET for one key"
	columnsShowConfig = "key value default changeable"
)

// settings are the verbs of the configuration.
func settings() []verb {
	return []verb{
		operation("RELOAD", "", helpReload, func(*arguments) (action, *wire.Error) { return reload, nil }),
		{name: "SET", args: strings.TrimPrefix(setForm, "SET "), help: helpSet, role: RoleAdmin, alone: true, mine: setsKey, act: readSet},
	}
}

func (c *Console) showConfig() [][]any {
	var rows [][]any
	for _, s := range c.cfg.Process.Settings() {
		changeable := "no"
		if s.Live {
			changeable = "yes"
		}
		rows = append(rows, []any{s.Key, s.Value, s.Default, changeable})
	}
	return rows
}

// reload is RELOAD.
func reload(_ context.Context, s *session) outcome {
	changed, restart, err := s.console.cfg.Process.Reload()
	if err != nil {
		return s.done("RELOAD", fileError(err))
	}
	o := s.done("RELOAD", nil)
	if len(changed) > 0 {
		o.notices = append(o.notices, &wire.Error{
			Severity: wire.SeverityNotice, Code: "00000", Message: "changed: " + strings.Join(changed, ", "),
		})
	}
	if len(restart) > 0 {
		o.notices = append(o.notices, warning(codeWarning, "changed in the file, but not in force before a restart: "+strings.Join(restart, ", ")))
	}
	return o
}

// fileError tells what is wrong with a configuration file: err joins one error for each problem.
func fileError(err error) *wire.Error {
	problems := strings.Split(err.Error(), "\n")
	e := wire.Errorf(codeConfigFile, "the configuration file cannot be used: %s", problems[0])
	if n := len(problems) - 1; n > 0 {
		e.Detail = strings.Join(problems[1:min(len(problems), problemsMax)], "\n")
	}
	return e.WithHint("Nothing was changed. shardproxy check --config FILE lists what is wrong.")
}

// setsKey says whether a SET is for the configuration, and not one of those that drivers send: the key is written with the
// name of its section.
func setsKey(c *Console, tokens []token, n int) bool {
	if len(tokens) < n+2 || !tokens[n].bare || !tokens[n+1].is(".") || c.cfg.Process == nil {
		return false
	}
	return slices.ContainsFunc(c.cfg.Process.Settings(), func(s Setting) bool {
		return strings.HasPrefix(s.Key, tokens[n].text+".")
	})
}

// readSet reads key = value and key TO value.
func readSet(a *arguments) (action, *wire.Error) {
	tokens := slices.Concat(a.list...)
	a.list = nil
	at := slices.IndexFunc(tokens, func(t token) bool { return t.is("=") || t.is("to") })
	if at < 0 || at == len(tokens)-1 {
		a.fail(a.end, "a value is missing")
		return nil, a.err
	}
	var key strings.Builder
	for _, t := range tokens[:at] {
		key.WriteString(t.text)
	}
	value := a.sql[tokens[at+1].at:tokens[len(tokens)-1].end]
	if of := tokens[at+1:]; len(of) == 1 && !of[0].bare {
		value = of[0].text
	}
	return func(_ context.Context, s *session) outcome {
		err := setError(key.String(), s.console.cfg.Process.Set(key.String(), value))
		return s.done(fmt.Sprintf("SET %s = %s", key.String(), value), err)
	}, nil
}

func setError(key string, err error) *wire.Error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrUnknownKey):
		return wire.Errorf(wire.CodeUndefinedObject, "%v \"%s\"", ErrUnknownKey, key).WithHint("SHOW CONFIG lists them.")
	case errors.Is(err, ErrFixedKey):
		return wire.Errorf(codeCannotChange, "parameter \"%s\" cannot be changed without restarting the proxy", key)
	case errors.Is(err, ErrListKey):
		return wire.Errorf(codeCannotChange, "parameter \"%s\" cannot be SET: %v", key, ErrListKey).
			WithHint("Change the file, then RELOAD.")
	}
	return wire.Errorf(wire.CodeInvalidParameterValue, "invalid value for parameter \"%s\": %v", key, err)
}
