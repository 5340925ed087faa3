"""The journal's tables, and how those of an older format are brought up to date.

Formats: 1, the first; 2 adds who answered (`mode`, `shadow`), the agreement of engines with baselines, and an
index by user.
"""

import secrets

from cluster.sql import Sql

FORMAT = 2

_SCHEMA = """
CREATE TABLE IF NOT EXISTS journal_facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS journal_counters (name TEXT PRIMARY KEY, value {integer} NOT NULL);
CREATE TABLE IF NOT EXISTS journal_closed (kind TEXT PRIMARY KEY, decision {integer} NOT NULL);
CREATE TABLE IF NOT EXISTS journal_agreements (
    client TEXT PRIMARY KEY, compared {integer} NOT NULL, agreed {integer} NOT NULL, propensity {real} NOT NULL);
CREATE TABLE IF NOT EXISTS journal_decisions (
    seq {integer} PRIMARY KEY, decision_id TEXT NOT NULL UNIQUE, client TEXT NOT NULL, user_key TEXT,
    request_id TEXT, version {integer}, epoch {integer} NOT NULL, slots {integer} NOT NULL,
    at {real} NOT NULL, request TEXT NOT NULL, answer TEXT NOT NULL, evidence {blob},
    mode TEXT NOT NULL DEFAULT 'live', shadow TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS journal_decisions_request
    ON journal_decisions (client, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS journal_decisions_user
    ON journal_decisions (client, user_key, seq) WHERE user_key IS NOT NULL;
CREATE TABLE IF NOT EXISTS journal_rewards (
    seq {integer} PRIMARY KEY, client TEXT NOT NULL, reward_id TEXT NOT NULL, decision_id TEXT NOT NULL,
    slot {integer} NOT NULL, kind TEXT NOT NULL, value {real} NOT NULL, at TEXT,
    arrived {real} NOT NULL, late {integer} NOT NULL, UNIQUE (client, reward_id));
CREATE INDEX IF NOT EXISTS journal_rewards_decision ON journal_rewards (decision_id);
CREATE TABLE IF NOT EXISTS journal_outcomes (
    seq {integer} PRIMARY KEY, decision {integer} NOT NULL, slot {integer} NOT NULL, kind TEXT NOT NULL,
    reward {real} NOT NULL, events {integer} NOT NULL, closed {real} NOT NULL);
CREATE TABLE IF NOT EXISTS journal_items (
    revision {integer} PRIMARY KEY, client TEXT NOT NULL, item_id TEXT NOT NULL, body TEXT, at {real} NOT NULL)
"""

_TO_2 = (
    "ALTER TABLE journal_decisions ADD COLUMN mode TEXT NOT NULL DEFAULT 'live'",
    "ALTER TABLE journal_decisions ADD COLUMN shadow TEXT",
    "UPDATE journal_decisions SET mode = 'baseline' WHERE version IS NULL",
)


def make(sql: Sql) -> None:
    """Make what is missing and bring an older format up to date, inside a transaction."""
    sql.make(_SCHEMA)
    facts = {"format": str(FORMAT), "secret": secrets.token_hex(32)}
    sql.insert("journal_facts", list(facts.items()), "ON CONFLICT DO NOTHING")
    if int(fact(sql, "format")) == 1:
        for statement in _TO_2:
            sql.run(statement)
        sql.run("UPDATE journal_facts SET value = '2' WHERE name = 'format'")


def fact(sql: Sql, name: str) -> str:
    return str(sql.one("SELECT value FROM journal_facts WHERE name = ?", (name,)))
