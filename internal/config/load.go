package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// FileError is one thing wrong with a line of a file.
type FileError struct {
	Path         string
	Line, Column int // 1-based; 0 unknown
	Message      string
}

func (e *FileError) Error() string {
	switch {
	case e.Line == 0:
		return e.Path + ": " + e.Message
	case e.Column == 0:
		return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.Path, e.Line, e.Column, e.Message)
}

// Load reads the file at path and the user file that it names. Paths in the file are relative to
// its folder. The error joins a *FileError for each unknown key, or is the first fault of the
// syntax or of a type. Whether the values make sense is for Check to say.
func Load(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	c, err := parse(path, text)
	if err != nil {
		return nil, err
	}
	c.resolvePaths(filepath.Dir(path))
	if c.Auth.UserFile != "" {
		if err := c.readUserFile(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// parse reads text as the file at path.
func parse(path string, text []byte) (*Config, error) {
	c := Default()
	defaultRules := c.Auth.Rules
	c.Auth.Rules = nil // else the decoder would fill the rules of the file into ours
	decoder := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := decoder.Decode(c); err != nil {
		return nil, fileErrors(path, text, err)
	}
	if c.Auth.Rules == nil {
		c.Auth.Rules = defaultRules
	}
	c.setDefaults()
	c.path, c.lines = path, findKeys(text).lines
	return c, nil
}

// fileErrors gives the decoder's errors their place in the file. It never quotes the file's text,
// which may hold secrets.
func fileErrors(path string, text []byte, err error) error {
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) {
		// The decoder leaves lists out of the keys it gives, so we take only the place from it.
		keys := findKeys(text).keys
		errs := make([]error, len(missing.Errors))
		for i := range missing.Errors {
			line, column := missing.Errors[i].Position()
			errs[i] = &FileError{path, line, column, "unknown key " + keys[place{line, column}]}
		}
		return errors.Join(errs...)
	}
	var fault *toml.DecodeError
	if errors.As(err, &fault) {
		line, column := fault.Position()
		message := strings.TrimPrefix(fault.Error(), "toml: ")
		if key := strings.Join(fault.Key(), "."); key != "" {
			message = key + ": " + message
		}
		return &FileError{path, line, column, message}
	}
	return fmt.Errorf("%s: %w", path, err)
}

// resolvePaths makes the file names relative to folder, the one of the configuration.
func (c *Config) resolvePaths(folder string) {
	for _, path := range []*string{
		&c.Auth.UserFile, &c.Listen.UnixSocketDir, &c.Listen.TLSCert, &c.Listen.TLSKey,
		&c.Listen.TLSClientCA, &c.ServerTLS.RootCert, &c.ServerTLS.Cert, &c.ServerTLS.Key,
	} {
		if path == &c.ServerTLS.RootCert && *path == systemRoots {
			continue
		}
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(folder, *path)
		}
	}
}
