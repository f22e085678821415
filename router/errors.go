package router

// Error is a statement refused, with what a client needs to act on it.
type Error struct {
	Code     string // SQLSTATE
	Message  string
	Detail   string
	Hint     string
	Position int // 1-based character position in the statement, 0 unknown
}

func (e *Error) Error() string { return e.Message + " (SQLSTATE " + e.Code + ")" }
