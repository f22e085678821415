package postgres

import (
	"net"
	"net/url"
	"strconv"
)

// DSN is the connection URL of a server without TLS; password may be "".
func DSN(user, password, host string, port int, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(user),
		Host:     net.JoinHostPort(host, strconv.Itoa(port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	if password != "" {
		u.User = url.UserPassword(user, password)
	}
	return u.String()
}
