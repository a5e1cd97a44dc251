"""How column types are declared, so that all databases compare, round and count alike.

SQLite compares text by its bytes.  PostgreSQL would sort it by the database's locale, and MariaDB
would also take `A` for `a` and `a` for `a `.  MariaDB would round times to seconds.

These are rules for the whole process, as SQLAlchemy's compiler has no others; only `CREATE` and
`ALTER TABLE` declare types.  Threading: any.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import DateTime, String, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateTable

_BY_BYTE = ' COLLATE "C"'
_TABLE = " CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin ENGINE=InnoDB"


@compiles(String, "postgresql")
def _string(type_: Any, compiler: Any, **options: Any) -> str:
    return str(compiler.visit_VARCHAR(type_, **options)) + _BY_BYTE


@compiles(Text, "postgresql")
def _text(_type: Any, _compiler: Any, **_options: Any) -> str:
    return "TEXT" + _BY_BYTE


@compiles(Text, "mysql", "mariadb")
def _long_text(_type: Any, _compiler: Any, **_options: Any) -> str:
    # TEXT would end after 64 KiB.
    return "MEDIUMTEXT"


@compiles(DateTime, "mysql", "mariadb")
def _microseconds(_type: Any, _compiler: Any, **_options: Any) -> str:
    return "DATETIME(6)"


@compiles(CreateTable, "mysql", "mariadb")
def _table(create: Any, compiler: Any, **options: Any) -> str:
    return str(compiler.visit_create_table(create, **options)).rstrip() + _TABLE
