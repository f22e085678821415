package topology

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// MoveOrder is what an operator wants of a move. It is left in the catalog by any proxy, and the coordinator takes it from there.
type MoveOrder struct {
	ID   int64
	Move int64
	What string // abort, pause, resume, reverse or finish
	Who  Actor
}

// AddMoveOrder leaves an order for the coordinator, and gives its number.
func (c *Catalog) AddMoveOrder(ctx context.Context, move int64, what string, who Actor) (id int64, err error) {
	err = c.transact(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
		const insert = "INSERT INTO shardproxy.move_orders (move_id, what, actor, origin) VALUES ($1, $2, $3, $4) RETURNING id"
		if err := tx.QueryRow(ctx, insert, move, what, who.User, who.From).Scan(&id); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "SELECT pg_notify($1, '')", movesChannel)
		return err
	})
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.ConstraintName == "move_orders_move_id_fkey" {
		return 0, fmt.Errorf("there is no move %d; `shardctl moves --all` lists them", move)
	}
	if err != nil {
		return 0, fmt.Errorf("ordering move %d to %s: %w", move, what, err)
	}
	return id, nil
}

// MoveOrders gives the orders that were not answered, the oldest first.
func (c *Catalog) MoveOrders(ctx context.Context) (orders []MoveOrder, err error) {
	err = c.transact(ctx, readOnly, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT id, move_id, what, actor, origin FROM shardproxy.move_orders WHERE answered_at IS NULL ORDER BY id")
		if err != nil {
			return err
		}
		orders, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (o MoveOrder, err error) {
			return o, row.Scan(&o.ID, &o.Move, &o.What, &o.Who.User, &o.Who.From)
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the orders for moves: %w", err)
	}
	return orders, nil
}

// AnswerMoveOrder says that an order was followed, or why it is refused. The first answer stays.
func (c *Catalog) AnswerMoveOrder(ctx context.Context, l Lease, id int64, refusal string) error {
	err := c.transact(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := checkLease(ctx, tx, l); err != nil {
			return err
		}
		const update = "UPDATE shardproxy.move_orders SET answered_at = clock_timestamp(), refusal = nullif($2, '') WHERE id = $1 AND answered_at IS NULL"
		_, err := tx.Exec(ctx, update, id, refusal)
		return err
	})
	if err != nil {
		return fmt.Errorf("answering order %d: %w", id, err)
	}
	return nil
}

// MoveOrderAnswer says whether an order was answered, and why it was refused.
func (c *Catalog) MoveOrderAnswer(ctx context.Context, id int64) (answered bool, refusal string, err error) {
	err = c.transact(ctx, readOnly, func(tx pgx.Tx) error {
		const query = "SELECT answered_at IS NOT NULL, coalesce(refusal, '') FROM shardproxy.move_orders WHERE id = $1"
		return tx.QueryRow(ctx, query, id).Scan(&answered, &refusal)
	})
	if err != nil {
		return false, "", fmt.Errorf("asking what became of order %d: %w", id, err)
	}
	return answered, refusal, nil
}
