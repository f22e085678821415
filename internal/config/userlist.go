package config

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// readUserFile adds the users of auth.user_file. A user that the configuration lists keeps what it
// says there, and takes the secret from the file only if it has none.
func (c *Config) readUserFile() error {
	text, err := os.ReadFile(c.Auth.UserFile)
	if err != nil {
		return &FileError{Path: c.path, Line: c.lineOf("auth.user_file"), Message: "auth.user_file: " + err.Error()}
	}
	users, err := parseUserList(c.Auth.UserFile, string(text))
	if err != nil {
		return err
	}
	known := make(map[string]int, len(c.Users))
	for i := range c.Users {
		known[c.Users[i].Name] = i
	}
	for _, u := range users {
		i, ok := known[u.Name]
		switch {
		case !ok:
			c.Users = append(c.Users, u)
		case c.Users[i].Secret == "":
			c.Users[i].Secret = u.Secret
		}
	}
	return nil
}

// parseUserList reads PgBouncer's userlist.txt: lines of "name" "secret", in which "" stands for
// one quote; what follows on the line is ignored, and so are lines that begin with ; or #.
func parseUserList(path, text string) ([]User, error) {
	var users []User
	seen := map[string]bool{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		name, rest, err := quoted(line)
		var secret string
		if err == nil {
			secret, _, err = quoted(strings.TrimLeft(rest, " \t"))
		}
		switch {
		case err == nil && name == "":
			err = errors.New("the user name is empty")
		case err == nil && seen[name]:
			err = fmt.Errorf("user %q is listed twice", name)
		}
		if err != nil {
			return nil, &FileError{Path: path, Line: number, Message: err.Error()}
		}
		seen[name] = true
		users = append(users, User{Name: name, Secret: Secret(secret)})
	}
	return users, nil
}

// quoted takes one "…" off the front of s.
func quoted(s string) (value, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		return "", "", errors.New(`expected "user" "secret", both in double quotes`)
	}
	var b strings.Builder
	for s = s[1:]; ; s = s[1:] {
		end := strings.IndexByte(s, '"')
		if end < 0 {
			return "", "", errors.New("a double quote is not closed")
		}
		b.WriteString(s[:end])
		s = s[end+1:]
		if !strings.HasPrefix(s, `"`) {
			return b.String(), s, nil
		}
		b.WriteByte('"')
	}
}
