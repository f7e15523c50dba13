-- jur_value and jur_exempt contradict each other in one pair of 400: an account and taxing unit that only one of them has is kept.
with exempt as (
    select e.acct, e.tax_district, sum(e.exempt_val) as exempt_value, string_agg(e.exempt_cat, ' ' order by e.exempt_cat collate "C") as exemptions
      from {jur_exempt} e
     group by e.acct, e.tax_district
), unit as (
    select acct, tax_district as tax_unit, v.tp_cd as tax_unit_type, v.pct_district as share, v.appraised_val as appraised_value,
           v.taxable_val as taxable_value, e.exempt_value, e.exemptions
      from {jur_value} v full join exempt e using (acct, tax_district)
)
select u.* from unit u where exists (select 1 from {real_acct} r where r.acct = u.acct)
