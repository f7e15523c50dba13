-- With measures and value where HCAD publishes them (homes in detail1, others in detail2, the current tax year only); of an account that neither
-- has, what extra_features says: uts is a number of units and no money, count the number of the account's features and no quantity.
with detail as (
    select d.*, 'extra_features_detail1' as published_in from {extra_features_detail1} d
    union all
    select d.*, 'extra_features_detail2' from {extra_features_detail2} d
), feature as (
    select d.acct, d.bld_num, d.cd as feature_code, d.dscr as description, null as category, d.units as quantity, d.asd_val as value,
           d.length, d.width, d.grade, d.cond_cd as condition_code, nullif(d.act_yr, 0) as year_built, d.published_in
      from detail d
    union all
    select f.acct, f.bld_num, f.cd, coalesce(f.l_dscr, f.s_dscr), f.cat, f.uts, null, null, null, f.grade, null, null, 'extra_features'
      from {extra_features} f
     where not exists (select 1 from detail d where d.acct = f.acct)
)
select f.* from feature f where exists (select 1 from {real_acct} r where r.acct = f.acct)
