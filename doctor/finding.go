package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Status of a finding.
type Status uint8

const (
	OK      Status = iota
	Warning        // works, but something is not as it should be
	Error          // answers may be wrong or missing, or will be
)

func (s Status) String() string { return [...]string{"ok", "warning", "error"}[s] }

// The checks, in the order in which they are told.
const (
	checkCatalog   = "catalog"
	checkPeers     = "peers"
	checkPrimaries = "primaries"
	checkReplicas  = "replicas"
	checkSettings  = "settings"
	checkSchema    = "schema"
	checkFences    = "fences"
	checkTables    = "tables"
	checkCommits   = "commits"
	checkMoves     = "moves"
	checkReference = "reference tables"
	checkPlacement = "placement"
)

var checks = []string{
	checkCatalog, checkPeers, checkPrimaries, checkReplicas, checkSettings, checkSchema, checkFences, checkTables, checkCommits,
	checkMoves, checkReference, checkPlacement,
}

// Finding is what a check says of something.
type Finding struct {
	Check   string
	Subject string // what it is about: a shard, a node, a table; "" for the whole cluster
	Status  Status
	Detail  string
	Hint    string // the next step, "" where there is none to name
}

// Limits of what is told. Whoever has more of one kind has one cause to look for.
const (
	findingsMax = 100 // of one check
	subjectsMax = 5   // of one finding
)

// notes gathers findings.
type notes []Finding

func (n *notes) add(check string, status Status, subject, detail, hint string) {
	*n = append(*n, Finding{check, subject, status, oneLine(detail), hint})
}

func (n *notes) ok(check, format string, args ...any) {
	n.add(check, OK, "", fmt.Sprintf(format, args...), "")
}

// oneLine keeps errors of servers from breaking lines.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// told gives the findings by check, the worst first. What is said of many alike is said once; of a check with anything else, what
// is well is left out.
func (n notes) told() []Finding {
	var list []Finding
	for _, check := range checks {
		of := n.of(check)
		if slices.ContainsFunc(of, func(f Finding) bool { return f.Status != OK }) {
			of = slices.DeleteFunc(of, func(f Finding) bool { return f.Status == OK })
		}
		slices.SortStableFunc(of, func(a, b Finding) int { return -cmp.Compare(a.Status, b.Status) })
		if more := len(of) - findingsMax; more > 0 {
			worst := of[findingsMax].Status
			of = append(of[:findingsMax], Finding{check, "", worst, fmt.Sprintf("and %d findings more", more), ""})
		}
		list = append(list, of...)
	}
	return list
}

// of gives the findings of a check. Those that say the same are one, with all their subjects.
func (n notes) of(check string) (list []Finding) {
	type said struct {
		status       Status
		detail, hint string
	}
	at := make(map[said]int)
	var subjects [][]string
	for _, f := range n {
		if f.Check != check {
			continue
		}
		key := said{f.Status, f.Detail, f.Hint}
		i, ok := at[key]
		if !ok {
			i = len(list)
			at[key] = i
			list, subjects = append(list, f), append(subjects, nil)
		}
		if f.Subject != "" && !slices.Contains(subjects[i], f.Subject) {
			subjects[i] = append(subjects[i], f.Subject)
		}
	}
	for i := range list {
		list[i].Subject = enumerate(subjects[i])
	}
	return list
}

// enumerate lists names, not all where they are many.
func enumerate(names []string) string {
	if more := len(names) - subjectsMax; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:subjectsMax], ", "), more)
	}
	return strings.Join(names, ", ")
}

// agree counts things, and says of one or of many what they do.
func agree(n int, thing, one, many string) string {
	if n == 1 {
		return "1 " + thing + " " + one
	}
	return plural(n, thing) + " " + many
}

// plural counts things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	if strings.HasSuffix(thing, "y") {
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(thing, "y"))
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
