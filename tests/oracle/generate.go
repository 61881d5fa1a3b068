package oracle

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// The sizes of the game. Keys come from a small range, so that transactions meet each other's rows and each row
// lives through inserts, key changes and deletes many times.
const (
	keyMax            = 40    // of the tables with a number for a key
	statementsMax     = 7     // in a transaction, savepoints not counted
	toastRepeatsMax   = 600   // times 32 bytes: up to 19 kB, beyond the 8 kB of a page
	rollbackPercent   = 12    // of the transactions
	savepointPercent  = 20    // of the statements are followed or preceded by one
	nullPercent       = 20    // of the values
	emptyPercent      = 2     // of the transactions clear a table by DELETE
	nokeyFirst        = 10000 // where the numbers begin that keep rows of a table without a key apart
	savepointDepthMax = 3
)

// Transaction is a list of statements, the closing COMMIT or ROLLBACK not among them.
type Transaction struct {
	Statements []string
	Rollback   bool
}

// Savepoint statements, recognised by the runner. A failed statement takes the transaction back to the newest
// savepoint, or to its beginning.
const (
	savepoint         = "SAVEPOINT s"
	savepointRelease  = "RELEASE SAVEPOINT s"
	savepointRollback = "ROLLBACK TO SAVEPOINT s; RELEASE SAVEPOINT s"
)

// Generator makes transactions. Equal seeds make equal ones. It is not for use by several goroutines.
type Generator struct {
	r     *rand.Rand
	lane  int
	lanes int
	nokey int
}

// NewGenerator returns the generator of one writer among lanes; lane counts from 0.
func NewGenerator(seed uint64, lane, lanes int) *Generator {
	return &Generator{r: rand.New(rand.NewPCG(seed, uint64(lane))), lane: lane, lanes: lanes}
}

// Next makes the next transaction.
func (g *Generator) Next() Transaction {
	t := Transaction{Rollback: g.chance(rollbackPercent)}
	if g.chance(emptyPercent) {
		t.Statements = append(t.Statements, "DELETE FROM "+pick(g, Tables()).SQL())
	}
	depth := 0
	for range 1 + g.r.IntN(statementsMax) {
		if g.chance(savepointPercent) && depth < savepointDepthMax {
			t.Statements = append(t.Statements, savepoint)
			depth++
		}
		t.Statements = append(t.Statements, g.statement())
		if depth > 0 && g.chance(savepointPercent) {
			t.Statements = append(t.Statements, pick(g, []string{savepointRelease, savepointRollback}))
			depth--
		}
	}
	return t
}

func (g *Generator) chance(percent int) bool { return g.r.IntN(100) < percent }

func pick[T any](g *Generator, from []T) T { return from[g.r.IntN(len(from))] }

// statement makes a statement on one of the tables, by weight.
func (g *Generator) statement() string {
	switch n := g.r.IntN(100); {
	case n < 46:
		return g.item()
	case n < 60:
		return g.pair()
	case n < 70:
		return g.nokeyRow()
	case n < 88:
		return g.doc()
	case n < 95:
		return g.oddRow()
	default:
		return fmt.Sprintf("INSERT INTO unseen VALUES (%d, %s) ON CONFLICT (id) DO UPDATE SET x = excluded.x",
			g.key(), g.text())
	}
}

func (g *Generator) item() string {
	cols := items.Columns[1:]
	switch g.r.IntN(10) {
	case 0, 1, 2:
		rows := make([]string, 1+g.r.IntN(5))
		for i := range rows {
			vals := []string{strconv.Itoa(g.key())}
			for _, c := range cols {
				vals = append(vals, g.itemValue(c))
			}
			rows[i] = "(" + strings.Join(vals, ", ") + ")"
		}
		return "INSERT INTO items VALUES " + strings.Join(rows, ", ") + " ON CONFLICT DO NOTHING"
	case 3, 4:
		return "UPDATE items SET " + g.sets(cols, g.itemValue) + fmt.Sprintf(" WHERE id = %d", g.key())
	case 5:
		return fmt.Sprintf("UPDATE items SET tenant = %s, %s WHERE tenant = %d AND id %% 3 = %d",
			g.itemValue("tenant"), g.sets([]string{"b", "v", "n", "d"}, g.itemValue), 1+g.r.IntN(4), g.r.IntN(3))
	case 6:
		// Several keys move at once, some of them onto taken ones: then the statement fails.
		return fmt.Sprintf("UPDATE items SET id = id + %d, %s WHERE id BETWEEN %d AND %[3]d + 2",
			3+g.r.IntN(20), g.sets([]string{"status", "tenant"}, g.itemValue), g.key())
	case 7:
		return fmt.Sprintf("UPDATE items SET id = %d WHERE id = %d", g.key(), g.key())
	case 8:
		return pick(g, []string{
			"UPDATE items SET status = status, b = b",
			"UPDATE items SET b = NULL WHERE b",
			"UPDATE items SET b = true, status = coalesce(status, 'open') WHERE b IS NULL",
			"UPDATE items SET n = NULLIF(n, 1.5), i8 = CASE WHEN i8 IS NULL THEN 5 END WHERE tenant < 3",
			"UPDATE items SET id = -id WHERE status = 'open' AND id < 8",
		})
	default:
		return fmt.Sprintf("DELETE FROM items WHERE id IN (%d, %d, %d)", g.key(), g.key(), g.key())
	}
}

// sets makes the list of assignments to one to four of cols.
func (g *Generator) sets(cols []string, value func(string) string) string {
	var sets []string
	for _, i := range g.r.Perm(len(cols))[:1+g.r.IntN(min(4, len(cols)))] {
		sets = append(sets, quoteIdent(cols[i])+" = "+value(cols[i]))
	}
	return strings.Join(sets, ", ")
}

func (g *Generator) pair() string {
	a, b := g.r.IntN(9), quoteText(pick(g, []string{"x", "y", "", "a/b", `q"`}))
	switch g.r.IntN(6) {
	case 0, 1:
		return fmt.Sprintf("INSERT INTO pairs VALUES (%d, %s, %s, %s) ON CONFLICT (b, a) DO UPDATE SET note = excluded.note",
			a, g.text(), b, g.number())
	case 2:
		return fmt.Sprintf("UPDATE pairs SET note = %s, amount = %s WHERE a = %d", g.text(), g.number(), a)
	case 3:
		return fmt.Sprintf("UPDATE pairs SET b = %s WHERE a = %d AND amount IS NOT NULL", b, a)
	case 4:
		return fmt.Sprintf("UPDATE pairs SET a = %d, b = %s, note = %s WHERE a = %d AND b = 'x'",
			g.r.IntN(9), b, g.text(), a)
	default:
		return fmt.Sprintf("DELETE FROM pairs WHERE a = %d", a)
	}
}

// nokeyRow writes the table without a key. Equal rows are one row to a client (protocol reference, 5.2), so column
// a keeps the rows apart: each inserted row has a number of its own, also among several writers.
func (g *Generator) nokeyRow() string {
	boolean := pick(g, []string{"true", "false", "NULL"})
	switch g.r.IntN(4) {
	case 0, 1:
		g.nokey++
		return fmt.Sprintf("INSERT INTO nokey VALUES (%d, %s, %s)",
			nokeyFirst+g.nokey*g.lanes+g.lane, g.text(), boolean)
	case 2:
		return fmt.Sprintf("UPDATE nokey SET b = %s, c = %s WHERE a %% 5 = %d", g.text(), boolean, g.r.IntN(5))
	default:
		return fmt.Sprintf("DELETE FROM nokey WHERE a %% 7 = %d", g.r.IntN(7))
	}
}

func (g *Generator) doc() string {
	name, folder := quoteText(pick(g, docNames)), pick(g, []string{"'a'", "'b'", "'c'", "NULL"})
	switch g.r.IntN(9) {
	case 0, 1:
		return fmt.Sprintf("INSERT INTO docs VALUES (%s, %s, %s, %d, %s) "+
			"ON CONFLICT (name) DO UPDATE SET size = excluded.size", name, folder, g.long(), g.r.IntN(20), g.long())
	case 2:
		return fmt.Sprintf("UPDATE docs SET size = %d WHERE name = %s", g.r.IntN(20), name)
	case 3:
		return fmt.Sprintf("UPDATE docs SET size = coalesce(size, 0) + 3, folder = %s WHERE folder = 'b'", folder)
	case 4:
		return fmt.Sprintf("UPDATE docs SET body = %s WHERE name = %s", g.long(), name)
	case 5:
		return fmt.Sprintf("UPDATE docs SET name = %s WHERE name = %s", quoteText(pick(g, docNames)), name)
	case 6:
		return fmt.Sprintf("UPDATE docs SET extra = body, folder = %s WHERE size < 8", folder)
	case 7:
		return fmt.Sprintf("UPDATE docs SET body = body, size = NULLIF(size, 4) WHERE name = %s", name)
	default:
		return "DELETE FROM docs WHERE name = " + name
	}
}

func (g *Generator) oddRow() string {
	switch g.r.IntN(4) {
	case 0, 1:
		return fmt.Sprintf(`INSERT INTO %s VALUES (%d, %s, %d) ON CONFLICT ("the ""key""") DO UPDATE SET "Größe" = %d`,
			odd.SQL(), g.key(), g.text(), g.r.IntN(5), g.r.IntN(5))
	case 2:
		return fmt.Sprintf(`UPDATE %s SET "has,comma" = %s WHERE "Größe" = %d`, odd.SQL(), g.text(), g.r.IntN(5))
	default:
		return fmt.Sprintf(`DELETE FROM %s WHERE "the ""key""" = %d`, odd.SQL(), g.key())
	}
}

func (g *Generator) key() int { return 1 + g.r.IntN(keyMax) }

func (g *Generator) text() string {
	if g.chance(nullPercent) {
		return "NULL"
	}
	return quoteText(pick(g, texts))
}

func (g *Generator) number() string { return pick(g, values["n"]) }

// long makes a value that Postgres keeps out of line, or now and then NULL or a short one.
func (g *Generator) long() string {
	switch g.r.IntN(8) {
	case 0:
		return "NULL"
	case 1:
		return g.text()
	}
	return fmt.Sprintf("%s || repeat(md5('%d'), %d)", pick(g, []string{"'a'", "'ä/'", "'b'"}),
		g.r.IntN(1000), toastRepeatsMax/2+g.r.IntN(toastRepeatsMax/2))
}

func (g *Generator) itemValue(col string) string {
	if g.chance(nullPercent) {
		return "NULL"
	}
	return pick(g, values[col])
}
