/* docs.h: what help() shows of the functions and types that are written in C: constants, in docs.c. */
#ifndef TR_PYTHON_DOCS_H
#define TR_PYTHON_DOCS_H

extern const char tr_doc_send[];
extern const char tr_doc_send_many[];
extern const char tr_doc_cast[];
extern const char tr_doc_call[];
extern const char tr_doc_stop[];
extern const char tr_doc_reply[];
extern const char tr_doc_spawn[];
extern const char tr_doc_spawn_link[];
extern const char tr_doc_spawn_monitor[];
extern const char tr_doc_self[];
extern const char tr_doc_sleep[];
extern const char tr_doc_link[];
extern const char tr_doc_unlink[];
extern const char tr_doc_alias[];
extern const char tr_doc_unalias[];
extern const char tr_doc_monitor[];
extern const char tr_doc_demonitor[];
extern const char tr_doc_exit[];
extern const char tr_doc_register[];
extern const char tr_doc_unregister[];
extern const char tr_doc_whereis[];
extern const char tr_doc_registered[];
extern const char tr_doc_send_after[];
extern const char tr_doc_pid[];
extern const char tr_doc_pid_send[];
extern const char tr_doc_pid_cast[];
extern const char tr_doc_pid_call[];
extern const char tr_doc_pid_stop[];
extern const char tr_doc_pid_acall[];
extern const char tr_doc_pid_astop[];
extern const char tr_doc_pid_exit[];
extern const char tr_doc_pid_info[];
extern const char tr_doc_pid_alive[];
extern const char tr_doc_pid_name[];
extern const char tr_doc_ref[];
extern const char tr_doc_from[];
extern const char tr_doc_from_pid[];
extern const char tr_doc_timer[];
extern const char tr_doc_timer_cancel[];
extern const char tr_doc_timer_remaining[];

#endif
